//! What a client asks of a running task, or of all that run here: commands, copies, counters.
//!
//! Each answer is a conversation of its own ([`super::talk`]). Everything is found by the task's directory and asked of its
//! shim or of the kernel, so it works for containers that an agent before this one started.

mod act;
mod attach;
mod copy;
mod exec;
mod look;
mod stats;
mod terminal;

use std::path::PathBuf;

use model::TaskId;
use runtime::handle::{self, Observed};
use wire::proto::stream::failure::Kind;
use wire::proto::stream::{Begin, begin, piece};

use crate::details::Details;
use crate::real::disk::Disk;
use crate::real::talk::{Ear, Gone, Mouth, Refusal};
use crate::real::{blocking, failure};

/// Why a conversation is over before its end.
#[derive(Debug)]
pub(crate) enum Cut {
    Refused(Refusal),
    Gone,
}

impl From<Gone> for Cut {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

impl From<Refusal> for Cut {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<crate::host::Failure> for Cut {
    fn from(failure: crate::host::Failure) -> Self {
        Self::Refused(failure.into())
    }
}

/// Answers for this node's tasks.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    disk: Disk,
    details: Details,
}

impl Tasks {
    pub(crate) fn new(disk: Disk, details: Details) -> Self {
        Self { disk, details }
    }

    /// One conversation, to its end; `task` is `None` where it is about the whole node.
    pub(crate) async fn serve(
        &self,
        task: Option<TaskId>,
        ear: &mut Ear<'_>,
        mouth: &Mouth,
    ) -> Result<(), Gone> {
        match self.answer(task, ear, mouth).await {
            Ok(()) | Err(Cut::Gone) => Ok(()),
            Err(Cut::Refused(refusal)) => mouth.refuse(refusal).await,
        }
    }

    async fn answer(&self, task: Option<TaskId>, ear: &mut Ear<'_>, mouth: &Mouth) -> Result<(), Cut> {
        let Some(piece::Kind::Begin(Begin { what: Some(what) })) = ear.hear().await else {
            return Err(unknown().into());
        };
        match (what, task) {
            (begin::What::Stats(asked), task) => stats::answer(self, task, asked, ear, mouth).await,
            (begin::What::Details(_), Some(task)) => look::details(self, task, mouth).await,
            (begin::What::Changes(_), Some(task)) => look::changes(self.latest(task)?, mouth).await,
            (begin::What::Exec(asked), Some(task)) => {
                exec::answer(self.running(task).await?, asked, ear, mouth).await
            }
            (begin::What::Attach(asked), Some(task)) => {
                attach::answer(self.running(task).await?, asked, ear, mouth).await
            }
            (begin::What::CopyOut(asked), Some(task)) => {
                copy::out(self.running(task).await?, asked, ear, mouth).await
            }
            (begin::What::CopyIn(asked), Some(task)) => {
                copy::into(self.running(task).await?, asked, ear, mouth).await
            }
            (begin::What::Act(asked), Some(task)) => {
                act::answer(self.running(task).await?, asked, mouth).await
            }
            (begin::What::Processes(_), Some(task)) => {
                look::processes(self.running(task).await?, mouth).await
            }
            (
                begin::What::Details(_)
                | begin::What::Changes(_)
                | begin::What::Exec(_)
                | begin::What::Attach(_)
                | begin::What::CopyOut(_)
                | begin::What::CopyIn(_)
                | begin::What::Act(_)
                | begin::What::Processes(_),
                None,
            ) => Err(unknown().into()),
        }
    }

    /// The directory of the task's latest attempt.
    fn latest(&self, task: TaskId) -> Result<PathBuf, Refusal> {
        let latest = self.disk.attempts(task).pop().map(|(_, dir)| dir);
        latest.ok_or_else(|| {
            Refusal::new(Kind::NotFound, format!("nothing of task {task} is left on its node"))
        })
    }

    /// The same, if its container runs.
    async fn running(&self, task: TaskId) -> Result<PathBuf, Refusal> {
        let dir = self.latest(task)?;
        let at = dir.clone();
        let observed = blocking(move || {
            handle::inspect(&at).map_err(|error| failure("cannot inspect the container", &error))
        });
        match observed.await? {
            Observed::Running(_) => Ok(dir),
            Observed::Exited(exited) => {
                let exit = exited.exit;
                Err(Refusal::new(
                    Kind::Conflict,
                    format!("the container of task {task} is not running: {exit}"),
                ))
            }
            Observed::NotStarted | Observed::Starting | Observed::Vanished => {
                Err(Refusal::new(Kind::Conflict, format!("the container of task {task} is not running")))
            }
        }
    }
}

fn unknown() -> Refusal {
    Refusal::new(Kind::Failed, "this node's version of gantry does not know what was asked; upgrade the node")
}
