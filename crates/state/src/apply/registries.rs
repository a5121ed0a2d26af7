//! What the cluster is told of registries.

use std::sync::Arc;

use model::{Registry, RegistryName};

use crate::apply::{Change, Step};
use crate::command::{Done, Outcome, RegistryChange, Rejected};
use crate::tables::REGISTRIES;

impl Step<'_> {
    pub(super) fn put_registry(&mut self, name: &RegistryName, change: &RegistryChange) -> Outcome {
        let known = self.state.registry(name);
        let mut registry = known.cloned().unwrap_or_default();
        match change {
            RegistryChange::Settings { mirrors, ca, insecure } => {
                (registry.mirrors, registry.ca, registry.insecure) = (mirrors.clone(), ca.clone(), *insecure);
            }
            RegistryChange::LogIn(credential) => registry.credential = Some(credential.clone()),
            RegistryChange::LogOut if known.is_none() => return Err(Rejected::NoRegistry(name.clone())),
            RegistryChange::LogOut => registry.credential = None,
        }
        if known == Some(&registry) || (known.is_none() && registry == Registry::default()) {
            return Ok(Done::Unchanged);
        }
        if registry.size() > Registry::MAX_SIZE {
            return Err(Rejected::RegistryTooLarge(name.clone()));
        }
        if known.is_none() && self.state.registries.len() >= REGISTRIES {
            return Err(Rejected::TooManyRegistries);
        }
        // One that is as every other is needs no row.
        if registry == Registry::default() {
            self.state.registries.remove(name);
        } else {
            self.state.registries.insert(name.clone(), Arc::new(registry));
        }
        self.changes.insert(Change::Registry(name.clone()));
        Ok(Done::Changed)
    }

    pub(super) fn remove_registry(&mut self, name: &RegistryName) -> Outcome {
        if self.state.registries.remove(name).is_none() {
            return Err(Rejected::NoRegistry(name.clone()));
        }
        self.changes.insert(Change::Registry(name.clone()));
        Ok(Done::Changed)
    }
}
