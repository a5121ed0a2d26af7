//! `gantry diff`.

use wire::proto::stream::{ListChanges, begin, piece};

use crate::failure::Failure;
use crate::render::{self, Format};
use crate::session::Session;
use crate::talk::{Subject, Times, open};

/// Show what a container has changed of its image's files
///
/// A line each: `A` for what it added, `C` for what it changed, `D` for what it deleted. What lies in mounts is not its
/// image's.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry diff hello/web.2
  gantry diff s1-2-3 -o json")]
pub struct Diff {
    /// STACK/SERVICE.SLOT, a task's id, or STACK/SERVICE for the first of its tasks that runs
    #[arg(value_name = "REF")]
    reference: String,
    /// How to write them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Diff {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let mut cluster = session.cluster()?;
        let what = begin::What::Changes(ListChanges {});
        let mut talk = open(&mut cluster, Subject::Task(&self.reference), what, Times::Any).await?;
        let mut changes = Vec::new();
        loop {
            match talk.ear.hear().await? {
                Some(piece::Kind::Changes(more)) => changes.extend(more.changes),
                Some(piece::Kind::End(_)) => break,
                Some(_other) => {}
                None => return Err(talk.ear.unfinished().into()),
            }
        }
        let lines = |_| render::changes::lines(&changes);
        session.output.data(render::list(self.output, &render::changes::rows(&changes), lines))?;
        Ok(())
    }
}
