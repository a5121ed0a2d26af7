//! `gantry commit`.

use model::ImageName;
use wire::proto::api::CommitRequest;

use crate::cluster::{Effect, Operation, PATIENCE};
use crate::failure::Failure;
use crate::progress::ImportDisplay;
use crate::render;
use crate::session::Session;
use crate::verbs::import::follow;

/// Make an image of what a container has changed, and wait until two nodes hold it
///
/// The image is the container's own with one more layer: the files that were made, changed and removed, as `gantry diff`
/// lists them. What lies in mounts is not in it. A container that runs is paused while its files are read; one that has ended
/// can be committed as long as its task is there.
///
/// How the image is run stays as its own image has it, but for what -c changes. Unlike with `docker commit`, what the service
/// says of that is not taken over: its environment may hold secrets.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry commit hello/web.1 hello:patched
  gantry commit -m 'with curl' -a 'Ada <ada@example.org>' hello/web hello:debug
  gantry commit -c 'CMD [\"/srv/run\"]' -c 'ENV LEVEL=debug' s1-2-3 hello:v2")]
pub struct Commit {
    /// What the image's history says of it
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Who made it
    #[arg(short, long, value_name = "NAME")]
    author: Option<String>,
    /// Let the container run meanwhile: files that it is just writing may be half
    #[arg(long)]
    no_pause: bool,
    /// Change what the image says of running it, as a line of a Dockerfile does: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK
    /// NONE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long, value_name = "LINE")]
    change: Vec<String>,
    /// STACK/SERVICE.SLOT, a task's id, or STACK/SERVICE: what runs there, or what ended last
    #[arg(value_name = "REF")]
    reference: String,
    /// What the image is called
    name: ImageName,
}

impl Commit {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { message, author, no_pause, change: changes, reference, name } = self;
        let operation = Operation { operand: &reference, effect: Effect::Reads, list: "gantry ps --all" };
        let commit = CommitRequest {
            reference: reference.clone(),
            name: name.to_string(),
            message: message.unwrap_or_default(),
            author: author.unwrap_or_default(),
            no_pause,
            changes,
        };
        let mut cluster = session.cluster()?;
        session.if_interrupted("the commit is given up; repeating it is safe");
        let begun = cluster.call_patiently(operation, PATIENCE, |mut client| {
            let commit = commit.clone();
            async move { client.commit_task(commit).await }
        });
        let answers = begun.await?;
        let mut display = ImportDisplay::of(session.output, None);
        let image = follow(answers, operation, &mut display).await?;
        drop(display);
        session.output.data(render::images::committed(&image))?;
        Ok(())
    }
}
