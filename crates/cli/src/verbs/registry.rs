//! `gantry registry`.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use model::RegistryName;
use wire::proto::api::{ListRequest, LoginRegistryRequest, RegistryRequest, SetRegistryRequest};
use wire::proto::model::RegistryCredential;
use wire::proto::model::registry_credential::Secret;

use crate::Exit;
use crate::cluster::{Effect, Operation, PATIENCE, request};
use crate::failure::Failure;
use crate::input;
use crate::render::{self, Format};
use crate::session::Session;
use crate::terminal::Held;

/// Longer passwords are files that somebody took for one.
const LONGEST: u64 = 64 << 10;

/// How long a registry may take to judge a credential, and a manager to say so.
const JUDGEMENT: Duration = Duration::from_secs(60);

/// The registries that images come from, and what the cluster is to them
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Registry {
    Login(Login),
    Logout(Logout),
    Ls(Ls),
    Set(Set),
    Rm(Rm),
}

/// Log the cluster in at a registry
///
/// The registry is asked whether it accepts the password, which is then kept in the cluster: every node can pull what its
/// tasks need. Managers have it on their disks, nodes in memory.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry registry login registry.example:5000
  gantry registry login -u me --password-stdin < token")]
pub struct Login {
    /// As it stands in image names
    #[arg(value_name = "HOST", default_value = "docker.io")]
    registry: RegistryName,
    /// Who to log in as; asked for if this is left out
    #[arg(short, long, value_name = "USER")]
    username: Option<String>,
    /// Read the password from stdin
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

/// Forget who the cluster is at a registry
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry registry logout registry.example:5000")]
pub struct Logout {
    /// As it stands in image names
    #[arg(value_name = "HOST", default_value = "docker.io")]
    registry: RegistryName,
}

/// List the registries of which the cluster keeps anything
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry registry ls
  gantry registry ls -o json")]
pub struct Ls {
    /// How to write them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Say how a registry is spoken to
///
/// It is exactly so afterwards: what is left out is as with any other registry. Who is logged in stays.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry registry set registry.lan:5000 --insecure
  gantry registry set registry.example --ca authority.pem
  gantry registry set docker.io --mirror mirror.example")]
pub struct Set {
    /// As it stands in image names
    #[arg(value_name = "HOST")]
    registry: RegistryName,
    /// Allow plain http, and certificates that nobody vouches for
    #[arg(long)]
    insecure: bool,
    /// A certificate to trust, of an authority or the registry's own, as PEM
    #[arg(long, value_name = "FILE")]
    ca: Vec<PathBuf>,
    /// A registry to ask first for what is pulled from this one
    #[arg(long, value_name = "HOST", value_parser = mirror)]
    mirror: Vec<RegistryName>,
}

/// Forget all that the cluster keeps of a registry
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry registry rm registry.lan:5000")]
pub struct Rm {
    /// As it stands in image names
    #[arg(value_name = "HOST")]
    registry: RegistryName,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum InvalidMirror {
    #[error(transparent)]
    Name(#[from] model::InvalidRegistryName),
    #[error("leave out `http://`, and mark the mirror: `gantry registry set {0} --insecure`")]
    PlainHttp(String),
}

/// A mirror as other tools have it: perhaps as a URL.
fn mirror(text: &str) -> Result<RegistryName, InvalidMirror> {
    let name = |text: &str| text.trim_end_matches('/').parse::<RegistryName>();
    match text.strip_prefix("http://") {
        Some(host) => Err(InvalidMirror::PlainHttp(name(host)?.to_string())),
        None => Ok(name(text.strip_prefix("https://").unwrap_or(text))?),
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    #[error("there is no terminal at which to ask for a user name and a password")]
    NoTerminal,
    #[error("there is no {0}")]
    Nothing(&'static str),
    #[error("the password is longer than {} KiB", LONGEST >> 10)]
    TooLong,
    #[error("cannot read from stdin")]
    Read(#[source] io::Error),
}

impl LoginError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::NoTerminal | Self::Nothing(_) | Self::TooLong => Exit::Usage,
            Self::Read(_) => Exit::Failed,
        }
    }

    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoTerminal => Some("give them with -u USER and --password-stdin"),
            Self::Nothing(_) | Self::TooLong | Self::Read(_) => None,
        }
    }
}

impl Registry {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Login(command) => command.run(session).await,
            Self::Logout(command) => command.run(session).await,
            Self::Ls(command) => command.run(session).await,
            Self::Set(command) => command.run(session).await,
            Self::Rm(command) => command.run(session).await,
        }
    }
}

impl Login {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { registry, username, password_stdin } = self;
        let mut cluster = session.cluster()?;
        session.if_interrupted("nothing was changed");
        let (username, password) = match username {
            Some(username) if password_stdin => (username, piped().await?),
            username => ask(session, username).await?,
        };
        let operand = registry.to_string();
        let operation = Operation { operand: &operand, effect: Effect::Changes, list: "gantry registry ls" };
        let credential =
            RegistryCredential { username: username.clone(), secret: Some(Secret::Password(password)) };
        let login = LoginRegistryRequest {
            request: request(),
            registry: operand.clone(),
            credential: Some(credential),
        };
        session.if_interrupted("the cluster may be logged in; `gantry registry ls` shows it");
        let sent = cluster.call_patiently(operation, JUDGEMENT, |mut client| {
            let login = login.clone();
            async move { client.login_registry(login).await }
        });
        if !sent.await?.checked {
            let text = format!("warning: {operand} lets everybody in, and has not looked at the password");
            session.output.say(&text);
        }
        session.output.data(format!("logged in to {operand} as {}\n", render::plain(&username)))?;
        Ok(())
    }
}

/// The password on stdin, without the end of its line.
async fn piped() -> Result<String, LoginError> {
    let read = || {
        let mut text = String::new();
        io::stdin().lock().take(LONGEST + 1).read_to_string(&mut text).map(|_| text)
    };
    let text = blocking(read).await?;
    if text.len() as u64 > LONGEST {
        return Err(LoginError::TooLong);
    }
    given(&text, "password on stdin")
}

fn given(text: &str, what: &'static str) -> Result<String, LoginError> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() { Err(LoginError::Nothing(what)) } else { Ok(text.to_owned()) }
}

/// Asks at the terminal, which does not show the password.
async fn ask(session: &Session, username: Option<String>) -> Result<(String, String), Failure> {
    if !io::stdin().is_terminal() {
        return Err(LoginError::NoTerminal.into());
    }
    let username = match username {
        Some(username) => username,
        None => {
            session.output.note("Username: ");
            given(&blocking(line).await?, "user name")?
        }
    };
    // First, so that nothing shows of a password that is pasted as soon as it is asked for.
    let unseen = Held::unseen().map_err(Failure::Terminal)?;
    session.output.note("Password: ");
    let typed = blocking(line).await;
    drop(unseen);
    // The end of the line was not shown either.
    session.output.note("\n");
    Ok((username, given(&typed?, "password")?))
}

fn line() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().lock().take(LONGEST).read_line(&mut text).map(|_| text)
}

/// Reads on a thread of its own, so that Ctrl-C is heeded meanwhile.
async fn blocking(read: impl FnOnce() -> io::Result<String> + Send + 'static) -> Result<String, LoginError> {
    match tokio::task::spawn_blocking(read).await {
        Ok(text) => text.map_err(LoginError::Read),
        Err(error) => Err(LoginError::Read(io::Error::other(error))),
    }
}

impl Logout {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let registry = self.registry.to_string();
        let operation = Operation { operand: &registry, effect: Effect::Changes, list: "gantry registry ls" };
        let logout = RegistryRequest { request: request(), registry: registry.clone() };
        let mut cluster = session.cluster()?;
        let sent = cluster.call(operation, PATIENCE, |mut client| {
            let logout = logout.clone();
            async move { client.logout_registry(logout).await }
        });
        sent.await?;
        session.output.data(format!("logged out of {registry}\n"))?;
        Ok(())
    }
}

impl Ls {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let operation = Operation { operand: "", effect: Effect::Reads, list: "gantry registry ls" };
        let mut cluster = session.cluster()?;
        let reply = cluster.call(operation, PATIENCE, |mut client| async move {
            client.list_registries(ListRequest::default()).await
        });
        let registries = reply.await?.registries;
        let table = |_| render::registries::registries_table(&registries);
        session.output.data(render::list(self.output, &render::registries::rows(&registries), table))?;
        Ok(())
    }
}

impl Set {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let registry = self.registry.to_string();
        let operation = Operation { operand: &registry, effect: Effect::Changes, list: "gantry registry ls" };
        let mut ca = Vec::new();
        for file in &self.ca {
            ca.push(input::text(file).await?);
        }
        let set = SetRegistryRequest {
            request: request(),
            registry: registry.clone(),
            insecure: self.insecure,
            ca,
            mirrors: self.mirror.iter().map(ToString::to_string).collect(),
        };
        let mut cluster = session.cluster()?;
        let sent = cluster.call(operation, PATIENCE, |mut client| {
            let set = set.clone();
            async move { client.set_registry(set).await }
        });
        let text = if sent.await?.changed { "set" } else { "nothing to change" };
        session.output.data(format!("{registry}: {text}\n"))?;
        Ok(())
    }
}

impl Rm {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let registry = self.registry.to_string();
        let operation = Operation { operand: &registry, effect: Effect::Changes, list: "gantry registry ls" };
        let remove = RegistryRequest { request: request(), registry: registry.clone() };
        let mut cluster = session.cluster()?;
        let sent = cluster.call(operation, PATIENCE, |mut client| {
            let remove = remove.clone();
            async move { client.remove_registry(remove).await }
        });
        sent.await?;
        session.output.data(format!("removed {registry}\n"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_may_be_written_as_a_url() {
        for text in ["mirror.lan:5000", "https://mirror.lan:5000", "https://mirror.lan:5000/"] {
            assert_eq!(mirror(text).map(|name| name.to_string()), Ok("mirror.lan:5000".to_owned()));
        }
        let plain = mirror("http://mirror.lan").unwrap_err().to_string();
        assert_eq!(
            plain,
            "leave out `http://`, and mark the mirror: `gantry registry set mirror.lan --insecure`"
        );
        assert!(mirror("https://mirror.lan/path").is_err());
    }

    #[test]
    fn the_end_of_its_line_is_no_part_of_a_password() {
        for text in ["secret", "secret\n", "secret\r\n"] {
            assert_eq!(given(text, "password").unwrap(), "secret");
        }
        assert_eq!(given(" two words \n", "password").unwrap(), " two words ");
        assert_eq!(given("\n", "password").unwrap_err().to_string(), "there is no password");
    }
}
