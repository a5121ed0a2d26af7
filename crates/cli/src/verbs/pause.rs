//! `gantry pause` and `gantry unpause`.

use wire::proto::model::Nothing;
use wire::proto::stream::{Act, act, begin};

use crate::failure::Failure;
use crate::session::Session;
use crate::talk::{Subject, Times, open};

/// Freeze all of a container's processes where they are
///
/// They keep their memory and connections, and get no processor time until `gantry unpause`. A health check may take the
/// container for dead meanwhile.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry pause hello/web.2
  gantry pause s1-2-3")]
pub struct Pause {
    /// STACK/SERVICE.SLOT, a task's id, or STACK/SERVICE for the first of its tasks that runs
    #[arg(value_name = "REF")]
    reference: String,
}

/// Let a paused container go on
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry unpause hello/web.2
  gantry resume s1-2-3")]
pub struct Unpause {
    /// STACK/SERVICE.SLOT, a task's id, or STACK/SERVICE for the first of its tasks that runs
    #[arg(value_name = "REF")]
    reference: String,
}

impl Pause {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { reference } = self;
        session.if_interrupted("it may be paused; `gantry unpause` lets it go on");
        perform(session, &reference, act::What::Pause(Nothing {}), Times::Any).await?;
        session.output.data(format!("{reference}: paused\n"))?;
        Ok(())
    }
}

impl Unpause {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { reference } = self;
        perform(session, &reference, act::What::Resume(Nothing {}), Times::Any).await?;
        session.output.data(format!("{reference}: goes on\n"))?;
        Ok(())
    }
}

/// Has something done to a container, and waits until it is.
pub(super) async fn perform(
    session: &Session,
    reference: &str,
    what: act::What,
    times: Times,
) -> Result<(), Failure> {
    let mut cluster = session.cluster()?;
    let what = begin::What::Act(Act { what: Some(what) });
    let mut talk = open(&mut cluster, Subject::Task(reference), what, times).await?;
    Ok(talk.ear.done().await?)
}
