//! The last step before anything of the image runs: the filter of system calls, the capabilities that a container keeps, and
//! its resource limits.
//!
//! libcontainer could load the filter, and would compile it anew in every container, which takes longer than all the rest of
//! a start. Loading one takes CAP_SYS_ADMIN (or no_new_privs, which Docker does not set), and giving a capability up for good
//! takes CAP_SETPCAP, so a container is made with those two and gives them up here.

use std::collections::HashSet;

use caps::{CapSet, Capability, CapsHashSet};

use crate::capability;
use crate::launch::{Launch, Ulimit};
use crate::seccomp::{Filter, FilterError};
use crate::ulimit;

/// The capabilities that [`Confinement::enter`] needs where there is a filter, and gives up.
pub(crate) const BORROWED: [&str; 2] = ["CAP_SYS_ADMIN", "CAP_SETPCAP"];

/// What a container is confined by.
#[derive(Debug)]
pub(crate) struct Confinement {
    /// `None` where the launch says that there is none.
    filter: Option<Filter>,
    /// What it keeps of capabilities, at most.
    keeps: CapsHashSet,
    ulimits: Vec<Ulimit>,
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
    /// What `launch` asks for, as far as the calling process has it to give.
    pub(crate) fn of(launch: &Launch) -> Result<Self, FilterError> {
        let privileges = &launch.options.privileges;
        let filter = if privileges.unfiltered { None } else { Some(Filter::read(&launch.seccomp)?) };
        let keeps = capability::granted(privileges).capabilities.into_iter().filter_map(capability::known);
        Ok(Self { filter, keeps: keeps.collect(), ulimits: launch.options.ulimits.clone() })
    }

    /// The filter alone, for a process that is given every capability: Docker's `exec --privileged` lifts no filter.
    pub(crate) fn enter_privileged(&self) -> Result<(), ConfineError> {
        match &self.filter {
            Some(filter) => Ok(filter.load()?),
            None => Ok(()),
        }
    }

    /// Confines the calling process, for good.
    pub(crate) fn enter(&self) -> Result<(), ConfineError> {
        // Before the filter, which may be its service's own, and tell this process that something was done and was not. What the
        // program is given is what is left here, whatever this process keeps.
        let bounding = caps::read(None, CapSet::Bounding)?;
        for excess in bounding.difference(&self.keeps) {
            caps::drop(None, CapSet::Bounding, *excess)?;
        }
        self.check(&[CapSet::Bounding, CapSet::Inheritable, CapSet::Ambient])?;
        if let Some(filter) = &self.filter {
            filter.load()?;
        }
        // Effective first: it has to stay a part of what is permitted.
        for set in [CapSet::Effective, CapSet::Permitted] {
            let kept: HashSet<Capability> =
                caps::read(None, set)?.intersection(&self.keeps).copied().collect();
            caps::set(None, set, &kept)?;
        }
        self.check(&[CapSet::Effective, CapSet::Permitted])
    }

    fn check(&self, sets: &[CapSet]) -> Result<(), ConfineError> {
        for set in sets {
            if !caps::read(None, *set)?.is_subset(&self.keeps) {
                return Err(ConfineError::Kept(*set));
            }
        }
        Ok(())
    }

    /// Sets the resource limits of the calling process, which is about to execute the container's program. Not before, since
    /// making a container takes more files, memory and processor time than some containers are allowed.
    pub(crate) fn limit(&self) -> Result<(), nix::errno::Errno> {
        ulimit::set(&self.ulimits)
    }
}
