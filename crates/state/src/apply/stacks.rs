//! What users declare.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    Cause, Digest, Generation, ImageName, Mode, Name, ServiceId, ServiceName, SpecVersion, Template,
};

use crate::apply::{Change, Step};
use crate::command::{Declared, Done, Outcome, Rejected};
use crate::retention;
use crate::tables::{Service, Stack};

impl Step<'_> {
    pub(super) fn deploy(
        &mut self,
        name: &Name,
        services: &BTreeMap<Name, Declared>,
        expected: Option<Generation>,
    ) -> Outcome {
        let old = self.state.stacks.get(name).cloned();
        let generation = self.state.generation_of(name);
        let mut members = match &old {
            Some(stack) if !stack.removing => stack.services.clone(),
            Some(_) | None => BTreeMap::new(),
        };
        if let Some(expected) = expected.filter(|expected| *expected != generation) {
            return Err(Rejected::Changed { name: name.to_string(), expected, actual: generation });
        }
        let pinned = services.iter().map(|(service, declared)| {
            let image = self.pinned(declared).ok_or(Rejected::NoImageContent(declared.image))?;
            Ok((service.clone(), Declared { image, ..declared.clone() }))
        });
        let services: BTreeMap<Name, Declared> = pinned.collect::<Result<_, Rejected>>()?;
        let mut changed = old.as_ref().is_none_or(|stack| stack.removing);
        for (service, id) in members.clone() {
            if !services.contains_key(&service) {
                self.mark_removing(id);
                members.remove(&service);
                changed = true;
            }
        }
        for (service, declared) in &services {
            let known = members.get(service).copied();
            let same = known.filter(|id| self.can_become(*id, declared));
            changed |= match same {
                Some(id) => self.redeclare(id, declared),
                None => {
                    if let Some(id) = known {
                        self.mark_removing(id);
                    }
                    let name = ServiceName { stack: name.clone(), service: service.clone() };
                    members.insert(service.clone(), self.declare(name, declared));
                    true
                }
            };
        }
        if !changed {
            return Ok(Done::Unchanged);
        }
        let stack =
            Stack { generation: self.at, deployed: self.state.time, services: members, removing: false };
        self.state.stacks.insert(name.clone(), Arc::new(stack));
        self.changes.insert(Change::Stack(name.clone()));
        Ok(Done::At(self.at))
    }

    /// Whether the service that is there can become what is declared. Otherwise that is another service of the same name.
    fn can_become(&self, id: ServiceId, declared: &Declared) -> bool {
        self.state.service(id).is_some_and(|service| service.spec.can_become(&declared.spec))
    }

    /// What the image's name stands for. It may have come to stand for another since the caller looked it up; nodes are dropping
    /// what it stood for then, if nothing else wants it.
    fn pinned(&self, declared: &Declared) -> Option<Digest> {
        let named = self.state.image_named(&declared.spec.task.image);
        let is_kept =
            |digest: &Digest| self.state.image(*digest).is_some() && self.state.image_is_wanted(*digest);
        [Some(declared.image), named].into_iter().flatten().find(is_kept)
    }

    fn declare(&mut self, name: ServiceName, declared: &Declared) -> ServiceId {
        self.state.last_service += 1;
        let id = ServiceId(self.state.last_service);
        let version = SpecVersion(1);
        let template = self.template(declared, 0);
        let rollout = self.rollout(&declared.spec, (version, version), Cause::Create);
        let mut service = Service {
            name,
            spec: declared.spec.clone(),
            version,
            last_version: version,
            templates: BTreeMap::from([(version, template)]),
            rollout,
            job: None,
            generation: self.at,
            created: self.state.time,
            next_sequence: 1,
            removing: false,
        };
        if service.spec.job.is_some() {
            self.new_job(id, &mut service);
        }
        self.put_service(id, service);
        id
    }

    /// Brings a service to what is declared; tells whether anything changed.
    fn redeclare(&mut self, id: ServiceId, declared: &Declared) -> bool {
        let Some(old) = self.state.services.get(&id).cloned() else { return false };
        let mut declared = declared.clone();
        if declared.keep_replicas {
            declared.spec.mode = old.spec.mode;
        }
        let current = &old.templates[&old.version];
        let wanted = self.template(&declared, current.restarted);
        if wanted.is_like(current) && old.spec == declared.spec {
            return false;
        }
        let mut service = Service::clone(&old);
        self.lets_go(&service.spec.task.image);
        service.spec = declared.spec;
        service.generation = self.at;
        self.reschedule(&mut service, &old.spec);
        if !wanted.is_like(current) {
            // What is kept and the same is what it was: tasks that have it are not touched.
            let same = |(_, kept): &(&SpecVersion, &Template)| {
                kept.image == wanted.image && kept.task == wanted.task
            };
            let kept = service.templates.iter().rfind(same).map(|(version, _)| *version);
            let to = kept.unwrap_or(SpecVersion(service.last_version.0 + 1));
            service.templates.entry(to).or_insert(wanted);
            if service.spec.job.is_some() {
                self.rerun(id, &mut service, to);
            } else {
                self.turn(&mut service, to, Cause::Deploy);
            }
        }
        self.put_service(id, service);
        self.forget_templates(id);
        true
    }

    fn template(&self, declared: &Declared, restarted: u32) -> Template {
        Template {
            task: Arc::new(declared.spec.task.clone()),
            image: declared.image,
            restarted,
            made: self.state.time,
            by: self.by.map(str::to_owned),
            stable: None,
        }
    }

    pub(super) fn remove_stack(&mut self, name: &Name) -> Outcome {
        let Some(stack) = self.state.stacks.get(name).filter(|stack| !stack.removing).cloned() else {
            return Err(Rejected::NoStack(name.clone()));
        };
        for id in stack.services.values() {
            self.mark_removing(*id);
        }
        let removing =
            Stack { generation: self.at, services: BTreeMap::new(), removing: true, ..Stack::clone(&stack) };
        self.state.stacks.insert(name.clone(), Arc::new(removing));
        self.changes.insert(Change::Stack(name.clone()));
        self.drop_empty_stack(name);
        Ok(Done::At(self.at))
    }

    pub(super) fn scale(
        &mut self,
        name: &ServiceName,
        replicas: u32,
        expected: Option<Generation>,
    ) -> Outcome {
        let Some((id, old)) = self.state.service_named(name) else {
            return Err(Rejected::NoService(name.clone()));
        };
        if let Some(expected) = expected.filter(|expected| *expected != old.generation) {
            return Err(Rejected::Changed { name: name.to_string(), expected, actual: old.generation });
        }
        match old.spec.mode {
            Mode::Global => return Err(Rejected::CannotScale(name.clone())),
            Mode::Replicated { replicas: known } if known == replicas => return Ok(Done::Unchanged),
            Mode::Replicated { .. } => {}
        }
        let mut service = old.clone();
        service.spec.mode = Mode::Replicated { replicas };
        service.generation = self.at;
        self.put_service(id, service);
        Ok(Done::At(self.at))
    }

    pub(super) fn drop_service(&mut self, id: ServiceId) -> Outcome {
        let service = self.state.services.get(&id).ok_or(Rejected::NoServiceId(id))?;
        if !service.removing || self.state.tasks_of(id).next().is_some() {
            return Err(Rejected::HasTasks(id));
        }
        let stack = service.name.stack.clone();
        // Whether its images are still wanted may have changed with it.
        let images = service.templates.values().map(|template| Change::Image(template.image));
        self.changes.extend(images);
        self.state.services.remove(&id);
        self.changes.insert(Change::Service(id));
        self.drop_empty_stack(&stack);
        Ok(Done::Changed)
    }

    pub(super) fn forget_templates(&mut self, id: ServiceId) {
        let forgotten = retention::trim_templates(self.state, id);
        self.changes.extend(forgotten.into_iter().map(Change::Image));
    }

    fn mark_removing(&mut self, id: ServiceId) {
        if let Some(old) = self.state.services.get(&id) {
            let service = Service { removing: true, generation: self.at, ..Service::clone(old) };
            self.lets_go(&service.spec.task.image);
            self.put_service(id, service);
        }
    }

    /// A service may no longer call its image so, and with that the name may have become free.
    pub(super) fn lets_go(&mut self, name: &ImageName) {
        let named = self.state.image_named(name);
        self.changes.extend(named.map(Change::Image));
    }

    fn drop_empty_stack(&mut self, name: &Name) {
        let removing = self.state.stacks.get(name).is_some_and(|stack| stack.removing);
        if removing && !self.state.services().any(|(_, service)| service.name.stack == *name) {
            self.state.stacks.remove(name);
            self.changes.insert(Change::Stack(name.clone()));
        }
    }

    pub(super) fn put_service(&mut self, id: ServiceId, service: Service) {
        self.state.services.insert(id, Arc::new(service));
        self.changes.insert(Change::Service(id));
    }
}
