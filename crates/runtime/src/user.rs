//! Who a container runs as, by the files of its own image.
//!
//! The rules are those of runc's `user.GetExecUser`, which Docker follows.

/// A user as the kernel knows one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The primary group first. Never empty, because libcontainer leaves the *shim's* supplementary groups in place when
    /// it is given none (the class of CVE-2023-25173).
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownUser {
    #[error("user `{0}` is not in the image's /etc/passwd")]
    User(String),
    #[error("group `{0}` is not in the image's /etc/group")]
    Group(String),
    #[error("`{0}` is not a user or group id: ids go up to 2147483647")]
    Range(String),
}

/// One line of passwd(5).
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// The highest id. The one that is all ones means "leave it as it is" to the kernel, so a process that is to have it stays root.
const HIGHEST: u32 = i32::MAX as u32;

fn file_id(field: &str) -> Option<u32> {
    field.parse().ok().filter(|id| *id <= HIGHEST)
}

/// Lines that are not an account are skipped, as libc does.
fn account(line: &str) -> Option<Account<'_>> {
    let mut fields = line.split(':');
    let (name, _password) = (fields.next()?, fields.next()?);
    let (uid, gid) = (file_id(fields.next()?)?, file_id(fields.next()?)?);
    let (_comment, home) = (fields.next()?, fields.next()?);
    Some(Account { name, uid, gid, home })
}

/// A line of group(5) as name, id and members.
fn group_line(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let (name, _password, gid) = (fields.next()?, fields.next()?, file_id(fields.next()?)?);
    Some((name, gid, fields.next().unwrap_or_default()))
}

/// A number as an id. `Ok(None)` is a name. Larger than an `i32` is refused and not wrapped to root (CVE-2024-40635).
fn id(text: &str) -> Result<Option<u32>, UnknownUser> {
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<i32>() {
        Ok(id) => Ok(u32::try_from(id).ok()),
        Err(_) => Err(UnknownUser::Range(text.to_owned())),
    }
}

/// Looks `asked` (`user`, `uid`, `user:group`, `uid:gid`; empty is root) up in the two files.
pub(crate) fn look_up(asked: &str, passwd: &str, group: &str) -> Result<Identity, UnknownUser> {
    let (user, wanted_group) = match asked.split_once(':') {
        Some((user, group)) => (user, (!group.is_empty()).then_some(group)),
        None => (asked, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let uid = id(user)?;
    let found = passwd.lines().filter_map(account).find(|account| match uid {
        Some(uid) => account.uid == uid,
        None => account.name == user,
    });
    let (uid, gid, home) = match (&found, uid) {
        (Some(account), _) => (account.uid, account.gid, account.home),
        (None, Some(uid)) => (uid, 0, "/"),
        (None, None) => return Err(UnknownUser::User(user.to_owned())),
    };
    let gid = match wanted_group {
        Some(name) => group_id(name, group)?,
        None => gid,
    };
    let mut groups = vec![gid];
    // An explicit group is the whole truth; the files' memberships belong to the implicit form only.
    if let (None, Some(account)) = (wanted_group, &found) {
        let member = |members: &str| members.split(',').any(|name| name == account.name);
        let more = group
            .lines()
            .filter_map(group_line)
            .filter(|(_, _, members)| member(members))
            .map(|(_, gid, _)| gid);
        groups.extend(more.filter(|more| *more != gid));
    }
    let home = if home.is_empty() { "/" } else { home };
    Ok(Identity { uid, gid, groups, home: home.to_owned() })
}

/// Adds the user to further groups: names looked up in the file, or numbers.
pub(crate) fn join(identity: &mut Identity, groups: &[String], group: &str) -> Result<(), UnknownUser> {
    for asked in groups {
        let gid = group_id(asked, group)?;
        if !identity.groups.contains(&gid) {
            identity.groups.push(gid);
        }
    }
    Ok(())
}

fn group_id(asked: &str, group: &str) -> Result<u32, UnknownUser> {
    if let Some(gid) = id(asked)? {
        return Ok(gid);
    }
    let found = group.lines().filter_map(group_line).find(|(name, _, _)| *name == asked);
    found.map(|(_, gid, _)| gid).ok_or_else(|| UnknownUser::Group(asked.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                          # a comment\n\
                          web:x:33:34:,,,:/var/www:/usr/sbin/nologin\n\
                          homeless:x:40:40:::\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:50:root,web\nssl:x:51:web\n";

    fn shown(asked: &str) -> String {
        match look_up(asked, PASSWD, GROUP) {
            Ok(Identity { uid, gid, groups, home }) => format!("{uid}:{gid} {groups:?} {home}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_user_is_looked_up_as_docker_does() {
        for (asked, identity) in [
            ("", "0:0 [0, 50] /root"),
            ("web", "33:34 [34, 50, 51] /var/www"),
            ("33", "33:34 [34, 50, 51] /var/www"),
            ("web:ssl", "33:51 [51] /var/www"),
            ("web:0", "33:0 [0] /var/www"),
            ("1000", "1000:0 [0] /"),
            ("1000:1000", "1000:1000 [1000] /"),
            (":ssl", "0:51 [51] /root"),
            ("web:", "33:34 [34, 50, 51] /var/www"),
            ("homeless", "40:40 [40] /"),
        ] {
            assert_eq!(shown(asked), identity, "{asked:?}");
        }
    }

    #[test]
    fn further_groups_are_names_of_the_container_or_numbers() {
        let joined = |groups: &[&str]| {
            let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
            let mut identity = look_up("33:34", PASSWD, GROUP).unwrap();
            join(&mut identity, &groups, GROUP).map(|()| identity.groups)
        };
        assert_eq!(joined(&["ssl", "7", "web", "51"]), Ok(vec![34, 51, 7]));
        assert_eq!(joined(&["nosuch"]), Err(UnknownUser::Group("nosuch".to_owned())));
        assert_eq!(joined(&["4294967296"]), Err(UnknownUser::Range("4294967296".to_owned())));
    }

    #[test]
    fn nobody_becomes_root_by_mistake() {
        assert_eq!(shown("nosuch"), "user `nosuch` is not in the image's /etc/passwd");
        assert_eq!(shown("web:nosuch"), "group `nosuch` is not in the image's /etc/group");
        for huge in ["4294967296", "4294967295", "2147483648"] {
            assert_eq!(shown(huge), format!("`{huge}` is not a user or group id: ids go up to 2147483647"));
        }
        assert_eq!(shown("-1"), "user `-1` is not in the image's /etc/passwd");
        assert_eq!(look_up("web", "", "").unwrap_err(), UnknownUser::User("web".to_owned()));
        // Nor by an image that has the id which means "leave it as it is".
        for ids in ["4294967295:34", "33:4294967295"] {
            let passwd = format!("web:x:{ids}::/:/bin/sh\n");
            assert_eq!(look_up("web", &passwd, "").unwrap_err(), UnknownUser::User("web".to_owned()));
        }
        let group = "odd:x:4294967295:web\n";
        assert_eq!(look_up("web", PASSWD, group).unwrap().groups, [34]);
        assert!(look_up("web:odd", PASSWD, group).is_err());
    }
}
