//! `gantry deploy`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use model::Name;
use spec::{Loaded, Problem, Source};
use tokio::time::Instant;
use wire::proto::api::{ConvergeRequest, DeployRequest};

use crate::cluster::{Effect, Operation, request};
use crate::failure::Failure;
use crate::input;
use crate::render;
use crate::session::Session;
use crate::settle::{Accepted, settle};
use crate::verbs::Wait;

/// Deploy Compose files as one stack, and wait until it runs
///
/// Services that the files no longer have are removed; what did not change is left alone. The stack's name is the argument,
/// or else the files' `name:`, or else the name of the directory that the first file is in.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry deploy -f compose.yaml hello
  gantry deploy -f compose.yaml -f production.yaml
  sed s/1.22/1.24/ compose.yaml | gantry deploy -f - hello")]
pub struct Deploy {
    /// A Compose file, or `-` for stdin; a later one is merged over the earlier ones
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// What the stack is called
    stack: Option<Name>,
    /// Refuse if anything of the stack has changed since this index: what `gantry plan` was answered with; 0 is no stack
    #[arg(long, value_name = "N")]
    check_index: Option<u64>,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Debug, thiserror::Error)]
#[error("{files}: {count}")]
pub(crate) struct UndeployableError {
    /// The problems for people, with their lines.
    pub(crate) report: String,
    files: String,
    /// In words.
    count: String,
    pub(crate) hint: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StackNameError {
    #[error("{}: the stack has no name, and the directory's is not one: {name:?}", input::shown(.file))]
    Directory { file: PathBuf, name: String },
    #[error("{}: the stack has no name, and the directory of the file cannot be found", input::shown(.file))]
    NoDirectory {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Deploy {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let begun = Instant::now();
        session.if_interrupted("nothing was changed");
        let (stack, deploy) = deployment(session, &self.files, self.stack).await?;
        let deploy = DeployRequest { expected: self.check_index, ..deploy };
        let mut cluster = session.cluster()?;
        let look = format!("gantry ps {stack}");
        session.if_interrupted(format!("the change may have been made; `{look}` shows it"));
        let operand = stack.to_string();
        let operation = Operation { operand: &operand, effect: Effect::Changes, list: "gantry image ls" };
        let sent = cluster.call_patiently(operation, self.wait.timeout, |mut client| {
            let deploy = deploy.clone();
            async move { client.deploy(deploy).await }
        });
        let reply = sent.await?;
        for warning in &reply.warnings {
            session.output.say(&format!("warning: {}", render::plain(warning)));
        }
        if !reply.changed {
            session.output.say(&format!("{stack}: nothing to change"));
        }
        for service in &reply.removed {
            session.output.say(&format!("{service}: no longer in the files, so it is removed"));
        }
        let goal =
            ConvergeRequest { targets: vec![operand.clone()], gone: false, generation: reply.generation };
        settle(session, &mut cluster, Accepted { operand, look, goal }, self.wait, begun).await
    }
}

/// What these files ask for, and of which stack.
pub(super) async fn deployment(
    session: &Session,
    files: &[PathBuf],
    stack: Option<Name>,
) -> Result<(Name, DeployRequest), Failure> {
    let sources = read(files).await?;
    let project = load(session, &sources, files)?.project;
    let stack = match (stack, project.name) {
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => name_of_directory(files.first().expect("clap requires a file"))?,
    };
    let deploy = DeployRequest {
        request: request(),
        stack: stack.to_string(),
        services: project.services.iter().map(|(name, spec)| (name.to_string(), spec.into())).collect(),
        expected: None,
        keep_replicas: project.unscaled.iter().map(ToString::to_string).collect(),
    };
    Ok((stack, deploy))
}

async fn read(files: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for file in files {
        sources.push(Source { name: input::shown(file), text: input::text(file).await? });
    }
    Ok(sources)
}

/// The project, after its warnings were printed.
fn load(session: &Session, sources: &[Source], files: &[PathBuf]) -> Result<Loaded, Failure> {
    // A name or value that is not text cannot be meant: `$NAME` in a file is.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let variables: BTreeMap<String, String> = environment.collect();
    let colour = session.output.colour;
    match spec::load(sources, &variables) {
        Ok(loaded) => {
            if !loaded.warnings.is_empty() {
                session.output.note(spec::render(&loaded.warnings, sources, colour) + "\n\n");
            }
            if let Some(hint) = unread_variables(&loaded.warnings, files) {
                session.output.say(&format!("  hint: {hint}"));
            }
            Ok(loaded)
        }
        Err(problems) => {
            let shown = [problems.warnings(), problems.as_slice()].concat();
            let error = UndeployableError {
                report: spec::render(&shown, sources, colour),
                files: sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join(", "),
                count: count(problems.as_slice().len(), problems.omitted()),
                hint: unread_variables(&shown, files),
            };
            Err(error.into())
        }
    }
}

/// How many problems there are, if not all of them are shown.
fn count(shown: usize, omitted: usize) -> String {
    match (shown, omitted) {
        (1, 0) => "one problem, nothing was deployed".to_owned(),
        (shown, 0) => format!("{shown} problems, nothing was deployed"),
        (shown, omitted) => {
            format!("{} problems, nothing was deployed (the first {shown} are shown)", shown + omitted)
        }
    }
}

/// What to know about a variable that is not set while there is a `.env` beside the first file: Compose would read it.
fn unread_variables(problems: &[Problem], files: &[PathBuf]) -> Option<String> {
    let beside = files.first().filter(|file| !input::is_stdin(file))?.with_file_name(".env");
    // A problem's words are all that `spec` says of its kind.
    let is_unset = |problem: &Problem| {
        problem.message().starts_with("the variable `") && problem.message().contains("not set")
    };
    let is_meant = problems.iter().any(is_unset) && beside.is_file();
    is_meant.then(|| format!("`.env` files are not read yet ({}): export what is in it", beside.display()))
}

/// Compose's default: the directory of the file, or the working directory for stdin.
fn name_of_directory(file: &Path) -> Result<Name, StackNameError> {
    let failed = |source| StackNameError::NoDirectory { file: file.to_owned(), source };
    let directory = if input::is_stdin(file) {
        std::env::current_dir().map_err(failed)?
    } else {
        let absolute = std::path::absolute(file).map_err(failed)?;
        absolute.parent().unwrap_or(&absolute).canonicalize().map_err(failed)?
    };
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.parse().map_err(|_| StackNameError::Directory { file: file.to_owned(), name })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_stack_is_called_like_the_directory_if_that_is_a_name() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["hello", "My_App"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let named = |directory_name: &str| {
            name_of_directory(&directory.path().join(directory_name).join("compose.yaml"))
        };
        assert_eq!(named("hello").unwrap().as_str(), "hello");
        let file = directory.path().join("My_App/compose.yaml");
        assert_eq!(
            named("My_App").unwrap_err().to_string(),
            format!("{}: the stack has no name, and the directory's is not one: \"My_App\"", file.display())
        );
    }

    #[test]
    fn an_unset_variable_beside_an_env_file_is_explained() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("compose.yaml");
        let text = "services: {web: {image: 'nginx:${TAG}', command: ['${ARG}']}}";
        let source = Source { name: "compose.yaml".to_owned(), text: text.to_owned() };
        let variables = BTreeMap::from([("TAG".to_owned(), "1.22".to_owned())]);
        let loaded = spec::load(std::slice::from_ref(&source), &variables).unwrap();
        assert_eq!(unread_variables(&loaded.warnings, std::slice::from_ref(&file)), None, "no `.env`");
        fs::write(directory.path().join(".env"), "ARG=x").unwrap();
        assert!(unread_variables(&loaded.warnings, std::slice::from_ref(&file)).is_some());
        assert_eq!(unread_variables(&[], &[file]), None, "all are set");
    }

    #[test]
    fn one_problem_is_one_error_and_the_rest_says_what_became_of_it() {
        let source = Source {
            name: "compose.yaml".to_owned(),
            text: "services: {web: {image: nginx, usr: a}}".to_owned(),
        };
        let problems = spec::load(std::slice::from_ref(&source), &BTreeMap::new()).unwrap_err();
        let failure = Failure::from(UndeployableError {
            report: spec::render(problems.as_slice(), &[source], false),
            files: "compose.yaml".to_owned(),
            count: count(1, 0),
            hint: None,
        });
        let text = failure.text(false);
        assert_eq!(text.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{text}");
        assert!(text.starts_with("error: unknown key `usr`\n"), "{text}");
        assert!(text.ends_with("\n\ncompose.yaml: one problem, nothing was deployed\n"), "{text}");
        assert_eq!(failure.exit().code(), 1);
    }

    #[test]
    fn problems_are_counted() {
        assert_eq!(count(1, 0), "one problem, nothing was deployed");
        assert_eq!(count(2, 0), "2 problems, nothing was deployed");
        assert_eq!(count(100, 5), "105 problems, nothing was deployed (the first 100 are shown)");
    }
}
