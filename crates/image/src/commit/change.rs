//! Instructions of a Dockerfile that change what an image says of running it, as `docker commit --change` takes them.

use serde_json::{Map, Value, json};

use super::words::{self, InvalidWords, Lookup};

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    instruction: Instruction,
    /// What follows it, as it was written: variables stand for what they are when the change is made.
    rest: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instruction {
    Cmd,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Label,
    StopSignal,
    User,
    Volume,
    WorkingDir,
}

const INSTRUCTIONS: [(&str, Instruction); 10] = [
    ("CMD", Instruction::Cmd),
    ("ENTRYPOINT", Instruction::Entrypoint),
    ("ENV", Instruction::Env),
    ("EXPOSE", Instruction::Expose),
    ("HEALTHCHECK", Instruction::Healthcheck),
    ("LABEL", Instruction::Label),
    ("STOPSIGNAL", Instruction::StopSignal),
    ("USER", Instruction::User),
    ("VOLUME", Instruction::Volume),
    ("WORKDIR", Instruction::WorkingDir),
];

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the change `{change}` is not one: {problem}")]
pub struct InvalidChange {
    change: String,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("it begins with none of {}", INSTRUCTIONS.map(|(name, _)| name).join(", "))]
    Instruction,
    #[error("nothing follows the instruction")]
    Empty,
    #[error("{0}")]
    Words(InvalidWords),
    #[error("what is in brackets is no list in JSON, with its strings in double quotes")]
    List,
    #[error("write it as NAME=VALUE")]
    Pair,
    #[error("it takes one word")]
    One,
    #[error("`{0}` is not a port: write for example 80, 53/udp or 8000-8010")]
    Port(String),
    #[error("a health check can only be taken away here: HEALTHCHECK NONE")]
    Healthcheck,
}

impl Change {
    /// Reads one instruction. What it is good for, only the image tells on which it is made.
    pub fn parse(text: &str) -> Result<Self, InvalidChange> {
        let shown = || text.chars().take(200).flat_map(char::escape_debug).collect();
        let invalid = |problem| InvalidChange { change: shown(), problem };
        let trimmed = text.trim();
        let (word, rest) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
        let known = INSTRUCTIONS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        let (_, instruction) = known.ok_or_else(|| invalid(Problem::Instruction))?;
        let change = Self { instruction, rest: rest.trim().to_owned() };
        if change.rest.is_empty() {
            return Err(invalid(Problem::Empty));
        }
        // Whatever it is made on, it fails in no other way.
        change.make(&mut Map::new(), &mut false).map_err(invalid)?;
        Ok(change)
    }

    /// Makes it in the `config` of an image's configuration. `has_command` is whether a change before it has set the command.
    pub(super) fn apply(
        &self,
        config: &mut Map<String, Value>,
        has_command: &mut bool,
    ) -> Result<(), InvalidChange> {
        self.make(config, has_command)
            .map_err(|problem| InvalidChange { change: self.rest.chars().take(200).collect(), problem })
    }

    fn make(&self, config: &mut Map<String, Value>, has_command: &mut bool) -> Result<(), Problem> {
        let before = environment(config);
        let lookup = |name: &str| {
            let mut entries = before.iter().rev().filter_map(|entry| entry.split_once('='));
            entries.find(|(own, _)| *own == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let rest = self.rest.as_str();
        match self.instruction {
            Instruction::Cmd => {
                let words = command(config, rest)?;
                config.insert("Cmd".to_owned(), json!(words));
                *has_command = true;
            }
            Instruction::Entrypoint => {
                let words = command(config, rest)?;
                config.insert("Entrypoint".to_owned(), json!(words));
                // The image's was meant for another one (Dockerfile reference, "Understand how CMD and ENTRYPOINT interact").
                if !*has_command {
                    config.remove("Cmd");
                }
            }
            Instruction::Env => {
                let pairs = pairs(rest, &lookup)?;
                let mut env = before;
                for (name, value) in pairs {
                    env.retain(|entry| entry.split_once('=').is_none_or(|(own, _)| own != name));
                    env.push(format!("{name}={value}"));
                }
                config.insert("Env".to_owned(), json!(env));
            }
            Instruction::Label => {
                let pairs = pairs(rest, &lookup)?;
                object(config, "Labels").extend(pairs.into_iter().map(|(name, value)| (name, json!(value))));
            }
            Instruction::Expose => {
                for word in words::split(rest, &lookup).map_err(Problem::Words)? {
                    let ports = ports(&word)?;
                    object(config, "ExposedPorts").extend(ports.into_iter().map(|port| (port, json!({}))));
                }
            }
            Instruction::Volume => {
                let paths =
                    list(rest).unwrap_or_else(|| words::split(rest, &lookup).map_err(Problem::Words))?;
                object(config, "Volumes").extend(paths.into_iter().map(|path| (path, json!({}))));
            }
            Instruction::User => set(config, "User", one(rest, &lookup)?),
            Instruction::StopSignal => set(config, "StopSignal", one(rest, &lookup)?),
            Instruction::WorkingDir => {
                let path = words::whole(rest, &lookup).map_err(Problem::Words)?;
                let before = config.get("WorkingDir").and_then(Value::as_str).unwrap_or_default();
                let path = match path.starts_with('/') {
                    true => path,
                    false => format!("{}/{path}", before.trim_end_matches('/')),
                };
                set(config, "WorkingDir", path);
            }
            Instruction::Healthcheck => {
                if !rest.eq_ignore_ascii_case("NONE") {
                    return Err(Problem::Healthcheck);
                }
                config.insert("Healthcheck".to_owned(), json!({ "Test": ["NONE"] }));
            }
        }
        Ok(())
    }
}

fn environment(config: &Map<String, Value>) -> Vec<String> {
    let entries = config.get("Env").and_then(Value::as_array).into_iter().flatten();
    entries.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn set(config: &mut Map<String, Value>, name: &str, value: String) {
    config.insert(name.to_owned(), Value::String(value));
}

/// The object of this name, which is made where there is none; Go writes `null` for one that is empty.
fn object<'a>(config: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let value = config.entry(name).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was made an object")
}

/// A list in JSON; `None` for what is not in brackets.
fn list(rest: &str) -> Option<Result<Vec<String>, Problem>> {
    let is_list = rest.starts_with('[') && rest.ends_with(']');
    is_list.then(|| serde_json::from_str(rest).map_err(|_| Problem::List))
}

/// A program with its arguments, or a line for the image's shell.
fn command(config: &Map<String, Value>, rest: &str) -> Result<Vec<String>, Problem> {
    if let Some(list) = list(rest) {
        return list;
    }
    let shell = config.get("Shell").and_then(Value::as_array).filter(|shell| !shell.is_empty());
    let mut words: Vec<String> = match shell {
        Some(shell) => shell.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        None => vec!["/bin/sh".to_owned(), "-c".to_owned()],
    };
    words.push(rest.to_owned());
    Ok(words)
}

/// `NAME=VALUE …`, or in the old form `NAME VALUE`.
fn pairs(rest: &str, lookup: Lookup<'_>) -> Result<Vec<(String, String)>, Problem> {
    let words = words::split(rest, lookup).map_err(Problem::Words)?;
    let first = words.first().ok_or(Problem::Empty)?;
    if !first.contains('=') {
        let (name, value) = rest.split_once(char::is_whitespace).ok_or(Problem::Pair)?;
        return Ok(vec![(name.to_owned(), words::whole(value, lookup).map_err(Problem::Words)?)]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err(Problem::Pair),
    };
    words.iter().map(pair).collect()
}

fn one(rest: &str, lookup: Lookup<'_>) -> Result<String, Problem> {
    let mut words = words::split(rest, lookup).map_err(Problem::Words)?;
    match (words.pop(), words.is_empty()) {
        (Some(word), true) => Ok(word),
        (Some(_), false) | (None, _) => Err(Problem::One),
    }
}

/// `80`, `53/udp` or `8000-8010/tcp`, each as an image has it.
fn ports(word: &str) -> Result<Vec<String>, Problem> {
    let bad = || Problem::Port(word.chars().take(100).flat_map(char::escape_debug).collect());
    let (numbers, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(bad);
    let (first, last) = (number(first)?, number(last)?);
    let protocol = protocol.to_ascii_lowercase();
    if first > last || !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(bad());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// One field a line.
    fn check(changes: &[&str], expected: Expect) {
        let config = json!({
            "Cmd": ["nginx"], "Entrypoint": ["/entry"], "Env": ["PATH=/bin", "A=old"], "Labels": null,
            "WorkingDir": "/srv", "X-Unknown": 7,
        });
        let Value::Object(mut config) = config else { panic!("it is an object") };
        let mut has_command = false;
        for change in changes {
            Change::parse(change).unwrap().apply(&mut config, &mut has_command).unwrap();
        }
        let line = |(name, value): (&String, &Value)| format!("{name}: {value}\n");
        expected.assert_eq(&config.iter().map(line).collect::<String>());
    }

    #[test]
    fn each_instruction_changes_what_it_is_for() {
        check(
            &[
                r#"CMD ["run", "--now"]"#,
                "env A=1 B=\"two words\" PATH=/opt:$PATH",
                "ENV OLD the old form",
                "LABEL team=web \"a b\"=c",
                "EXPOSE 80 53/udp 8000-8001",
                "USER app:web",
                "VOLUME /data /cache",
                r#"VOLUME ["/more"]"#,
                "WORKDIR app",
                "STOPSIGNAL SIGQUIT",
                "HEALTHCHECK none",
            ],
            expect![[r#"
                Cmd: ["run","--now"]
                Entrypoint: ["/entry"]
                Env: ["A=1","B=two words","PATH=/opt:/bin","OLD=the old form"]
                ExposedPorts: {"53/udp":{},"80/tcp":{},"8000/tcp":{},"8001/tcp":{}}
                Healthcheck: {"Test":["NONE"]}
                Labels: {"a b":"c","team":"web"}
                StopSignal: "SIGQUIT"
                User: "app:web"
                Volumes: {"/cache":{},"/data":{},"/more":{}}
                WorkingDir: "/srv/app"
                X-Unknown: 7
            "#]],
        );
    }

    #[test]
    fn an_entrypoint_drops_the_images_command_and_not_one_that_comes_with_it() {
        check(
            &["ENTRYPOINT /mine $HOME"],
            expect![[r#"
                Entrypoint: ["/bin/sh","-c","/mine $HOME"]
                Env: ["PATH=/bin","A=old"]
                Labels: null
                WorkingDir: "/srv"
                X-Unknown: 7
            "#]],
        );
        check(
            &["CMD serve", r#"ENTRYPOINT ["/mine"]"#],
            expect![[r#"
                Cmd: ["/bin/sh","-c","serve"]
                Entrypoint: ["/mine"]
                Env: ["PATH=/bin","A=old"]
                Labels: null
                WorkingDir: "/srv"
                X-Unknown: 7
            "#]],
        );
    }

    #[test]
    fn what_is_no_change_is_refused_before_anything_is_done() {
        for (change, problem) in [
            ("RUN make", "it begins with none of CMD, ENTRYPOINT, ENV"),
            ("", "it begins with none of"),
            ("CMD", "nothing follows the instruction"),
            ("CMD ['a']", "no list in JSON"),
            ("ENV A", "write it as NAME=VALUE"),
            ("ENV A=1 =2", "write it as NAME=VALUE"),
            ("LABEL a='b", "a ' is opened and not closed"),
            ("EXPOSE 0", "`0` is not a port"),
            ("EXPOSE 90-80", "`90-80` is not a port"),
            ("EXPOSE 80/icmp", "`80/icmp` is not a port"),
            ("USER a b", "it takes one word"),
            ("HEALTHCHECK CMD true", "HEALTHCHECK NONE"),
        ] {
            let text = Change::parse(change).unwrap_err().to_string();
            assert!(text.contains(problem), "{change}: {text}");
        }
    }
}
