//! `down`: nothing of a cluster is left, whatever state it was in.

use model::Name;

use crate::layout::Layout;
use crate::lock::{self, LockError, WAITING};
use crate::output::note;
use crate::record::{Record, RecordError, Stage};
use crate::world::{self, WorldError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum DownError {
    #[error("cluster {0} never came up as a whole: it has no disks that are worth keeping")]
    NothingToKeep(Name),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    World(#[from] WorldError),
}

/// Ends a cluster's processes and removes what they had; its disks too, unless they are to be kept for another `up`.
/// Returns what was done as a sentence.
pub(crate) fn down(layout: &Layout, keep_data: bool) -> Result<String, DownError> {
    let cluster = layout.cluster();
    // Without a folder there is nothing that another command could be working on.
    let _lock = lock::acquire(&layout.dir(), || note(WAITING))?;
    match Record::load(layout) {
        Ok(Some(record)) if keep_data && record.stage != Stage::Made => {
            return Err(DownError::NothingToKeep(cluster.clone()));
        }
        Ok(Some(mut record)) if !keep_data => {
            record.stage = Stage::Removing;
            record.save(layout)?;
        }
        // What it says could not be trusted; everything is found by name.
        Err(RecordError::Damaged { .. }) if !keep_data => {}
        loaded => drop(loaded?),
    }
    let felled = world::fell_cluster(layout)?;
    if keep_data {
        let what = if felled { "is down, and its disks are kept" } else { "was down already" };
        return Ok(format!("cluster {cluster} {what}: {}", layout.dir().display()));
    }
    let removed = world::remove_disks(layout)?;
    Ok(if felled || removed {
        format!("cluster {cluster} is removed")
    } else {
        format!("there is no cluster {cluster}, and nothing to remove")
    })
}
