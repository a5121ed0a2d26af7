//! The last step before anything of the image runs: the filter of system calls, and the capabilities that a container keeps.
//!
//! libcontainer could load the filter, and would compile it anew in every container, which takes longer than all the rest of
//! a start. Loading one takes CAP_SYS_ADMIN (or no_new_privs, which Docker does not set), so a container is made with that
//! capability and gives it up here.

use std::collections::HashSet;
use std::str::FromStr as _;

use caps::{CapSet, Capability, CapsHashSet};

use crate::launch::Launch;
use crate::oci;
use crate::seccomp::{Filter, FilterError};

/// The capability that [`Confinement::enter`] needs and gives up.
pub(crate) const LOADS_FILTERS: &str = "CAP_SYS_ADMIN";

/// What a container is confined by.
#[derive(Debug)]
pub(crate) struct Confinement {
    filter: Filter,
    /// What it keeps of capabilities, at most.
    keeps: CapsHashSet,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfineError {
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("cannot give up capabilities")]
    Capabilities(#[from] caps::errors::CapsError),
    #[error("{0:?} capabilities were not given up")]
    Kept(CapSet),
}

impl Confinement {
    pub(crate) fn of(launch: &Launch) -> Result<Self, FilterError> {
        let keeps = oci::CAPABILITIES.iter().map(|name| {
            Capability::from_str(name).expect("the names of capabilities are part of the program")
        });
        Ok(Self { filter: Filter::read(&launch.seccomp)?, keeps: keeps.collect() })
    }

    /// The filter alone, for a process that is given every capability: Docker's `exec --privileged` lifts no filter.
    pub(crate) fn enter_privileged(&self) -> Result<(), ConfineError> {
        Ok(self.filter.load()?)
    }

    /// Confines the calling process, for good.
    pub(crate) fn enter(&self) -> Result<(), ConfineError> {
        self.filter.load()?;
        let bounding = caps::read(None, CapSet::Bounding)?;
        for excess in bounding.difference(&self.keeps) {
            caps::drop(None, CapSet::Bounding, *excess)?;
        }
        // Effective first: it has to stay a part of what is permitted.
        for set in [CapSet::Effective, CapSet::Permitted] {
            let kept: HashSet<Capability> =
                caps::read(None, set)?.intersection(&self.keeps).copied().collect();
            caps::set(None, set, &kept)?;
        }
        for set in
            [CapSet::Bounding, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient]
        {
            if !caps::read(None, set)?.is_subset(&self.keeps) {
                return Err(ConfineError::Kept(set));
            }
        }
        Ok(())
    }
}
