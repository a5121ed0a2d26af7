//! What one node must be doing, computed from the state: all of it, or what changed.

use std::collections::{BTreeMap, BTreeSet};

use model::{Desired, Digest, Liveness, NodeId, Origin, Phase, RegistryName, Role, Task, TaskId};
use state::{COPIES, Change, State};
use wire::proto::agent::{AssignedImage, AssignedTask, Delta, Holder, PullSource, Subnet, Whole};

/// The holders that are told of what a registry has as well. They are asked one after the other before it is, and where every
/// node has the image, all of them in everybody's list would be told to all whenever one more has it.
const PEERS: usize = 5;

/// Everything that `node` must be doing. Of the tasks that it says it knows, those without a row are named as unknown.
pub fn whole(state: &State, node: NodeId, known: &[TaskId]) -> Whole {
    let row = state.node(node);
    let tasks = state.tasks_on(node).filter_map(|(id, task)| assigned(state, id, task)).collect();
    let here: BTreeSet<TaskId> = state.tasks_on(node).map(|(id, _)| id).collect();
    let unknown = known.iter().filter(|id| !here.contains(id));
    let kept = state
        .images()
        .filter(|(digest, image)| image.copies.contains_key(&node) && state.image_is_wanted(*digest));
    Whole {
        cluster: state.cluster().map(|cluster| cluster.id.to_string()).unwrap_or_default(),
        generation: state.applied().0,
        subnet: row.map(|row| Subnet { base: row.subnet.base.to_string(), prefix: row.subnet.prefix.into() }),
        tasks,
        unknown: unknown.map(|id| (*id).into()).collect(),
        images: kept.map(|(digest, _)| copy(state, node, digest)).collect(),
        managers: state
            .nodes()
            .filter(|(_, node)| node.role == Role::Manager)
            .map(|(id, node)| Holder { node: id.0, address: node.address.to_string() })
            .collect(),
    }
}

/// What `changes` mean for `node`, or nothing.
pub fn delta(state: &State, node: NodeId, from: u64, changes: &BTreeSet<Change>) -> Option<Delta> {
    let mut delta = Delta { from, generation: state.applied().0, ..Delta::default() };
    let Touched { mut tasks, images } = touched(state, node, changes);
    for digest in images {
        let Some(image) = state.image(digest) else { continue };
        let has_copy = image.copies.contains_key(&node);
        if has_copy && !state.image_is_wanted(digest) {
            delta.dropped_images.push(digest.to_string());
        } else if has_copy {
            delta.images.push(copy(state, node, digest));
        } else if image.origin.is_some() {
            // Whoever waits for it is told anew where it is. It is fetched by them alone: a registry that does not give it
            // is asked no more often than their attempts are made.
            tasks.extend(waiting(state, node, digest));
        } else if is_used(state, node, digest) {
            delta.images.push(assigned_image(state, digest));
        }
    }
    for id in tasks {
        match state.task(id) {
            Some(task) => delta.tasks.extend(assigned(state, id, task)),
            None => delta.unknown.push(id.into()),
        }
    }
    let is_empty = delta.tasks.is_empty()
        && delta.unknown.is_empty()
        && delta.images.is_empty()
        && delta.dropped_images.is_empty();
    (!is_empty).then_some(delta)
}

/// What changes may concern a node.
#[derive(Default)]
struct Touched {
    tasks: BTreeSet<TaskId>,
    images: BTreeSet<Digest>,
}

fn touched(state: &State, node: NodeId, changes: &BTreeSet<Change>) -> Touched {
    let mut touched = Touched::default();
    for change in changes {
        match change {
            Change::Task(id, Some(there)) if *there == node => drop(touched.tasks.insert(*id)),
            Change::Image(digest) => drop(touched.images.insert(*digest)),
            // An image is no longer wanted when the last service that used it goes.
            Change::Service(id) => {
                let templates = state.service(*id).into_iter().flat_map(|s| s.templates.values());
                touched.images.extend(templates.map(|template| template.image));
            }
            // Which of more copies than are needed are to last depends on who is up.
            Change::Node(_) => {
                let spare = state.images().filter(|(_, image)| {
                    image.origin.is_none() && image.copies.len() > COPIES && image.copies.contains_key(&node)
                });
                touched.images.extend(spare.map(|(digest, _)| digest));
            }
            Change::Registry(name) => {
                let needs = |image: Digest| comes_through(state, image, name);
                let tasks = state.tasks_on(node).filter(|(_, task)| needs_image(task));
                let tasks = tasks.filter(|(id, _)| state.template_of(*id).is_some_and(|t| needs(t.image)));
                touched.tasks.extend(tasks.map(|(id, _)| id));
            }
            Change::Task(..) | Change::Stack(_) | Change::Cluster => {}
        }
    }
    touched
}

/// Images that `node` holds and nothing wants any more.
pub fn unwanted_images(state: &State, node: NodeId) -> Vec<String> {
    let held = state.images().filter(|(_, image)| image.copies.contains_key(&node));
    held.filter(|(digest, _)| !state.image_is_wanted(*digest)).map(|(digest, _)| digest.to_string()).collect()
}

/// A task that is to run may need its image at any time: what is gone from the node is fetched again.
fn needs_image(task: &Task) -> bool {
    task.desired == Desired::Running && task.ended().is_none()
}

fn users(state: &State, node: NodeId, digest: Digest) -> impl Iterator<Item = (TaskId, &Task)> {
    state
        .tasks_on(node)
        .filter(|(_, task)| needs_image(task))
        .filter(move |(id, _)| state.template_of(*id).is_some_and(|template| template.image == digest))
}

fn is_used(state: &State, node: NodeId, digest: Digest) -> bool {
    users(state, node, digest).next().is_some()
}

/// The tasks that are held up by this image, as far as is known.
fn waiting(state: &State, node: NodeId, digest: Digest) -> impl Iterator<Item = TaskId> {
    let waits = |task: &Task| match task.status.as_ref().map(|status| status.phase) {
        None | Some(Phase::Preparing | Phase::Exited) => true,
        Some(Phase::Created | Phase::Starting | Phase::Running | Phase::Stopping) => false,
    };
    users(state, node, digest).filter(move |(_, task)| waits(task)).map(|(id, _)| id)
}

/// Whether what is kept of a registry counts when the image is pulled.
fn comes_through(state: &State, image: Digest, registry: &RegistryName) -> bool {
    let origin = state.image(image).and_then(|image| image.origin.as_ref());
    origin.is_some_and(|origin| asked_for(state, origin).any(|asked| asked == registry))
}

/// Who is asked for what is at `origin`: the registry, and its mirrors.
fn asked_for<'a>(state: &'a State, origin: &'a Origin) -> impl Iterator<Item = &'a RegistryName> {
    let mirrors = state.registry(origin.registry()).into_iter().flat_map(|registry| &registry.mirrors);
    std::iter::once(origin.registry()).chain(mirrors)
}

fn assigned(state: &State, id: TaskId, task: &Task) -> Option<AssignedTask> {
    let service = state.service(id.service)?;
    let template = service.templates.get(&task.version)?;
    let mut image = assigned_image(state, template.image);
    // Credentials go to nobody who does not need them.
    if !needs_image(task) {
        image.source = None;
    }
    Some(AssignedTask {
        id: Some(id.into()),
        service: service.name.to_string(),
        // Who gives way to whom is not the node's to know.
        desired: wire::proto::model::Desired::from(if task.desired.runs() {
            Desired::Running
        } else {
            task.desired
        })
        .into(),
        spec: Some((&*template.task).into()),
        placement: task.placement.as_ref().map(Into::into),
        image: Some(image),
    })
}

/// An image of which the node has a copy, or is to have one. It is told that a registry has it, and nothing of the registry.
fn copy(state: &State, node: NodeId, digest: Digest) -> AssignedImage {
    let mut image = assigned_image(state, digest);
    image.optional = !state.must_hold(digest, node);
    if let Some(source) = &mut image.source {
        source.registries.clear();
    }
    image
}

fn assigned_image(state: &State, digest: Digest) -> AssignedImage {
    let origin = state.image(digest).and_then(|image| image.origin.as_ref());
    AssignedImage { source: origin.map(|origin| source(state, origin)), ..held(state, digest) }
}

/// An image that the cluster may not know yet, as it is to be pulled from a repository.
pub(crate) fn image_from(state: &State, digest: Digest, origin: &Origin) -> AssignedImage {
    AssignedImage { source: Some(source(state, origin)), ..held(state, digest) }
}

fn held(state: &State, digest: Digest) -> AssignedImage {
    let image = state.image(digest);
    let copies = image.into_iter().flat_map(|image| image.copies.iter());
    let holders = copies.filter(|(_, since)| since.is_some()).filter_map(|(id, _)| {
        let node = state.node(*id)?;
        Some((node.liveness != Liveness::Ready, Holder { node: id.0, address: node.address.to_string() }))
    });
    let mut holders: Vec<(bool, Holder)> = holders.collect();
    // They are asked in this order, and each that is down costs a wait.
    holders.sort_by_key(|(is_away, _)| *is_away);
    // Of what nobody else has, each may be the one that gives it.
    let most = if image.is_some_and(|image| image.origin.is_some()) { PEERS } else { holders.len() };
    let holders = holders.into_iter().take(most).map(|(_, holder)| holder).collect();
    AssignedImage { digest: digest.to_string(), holders, ..AssignedImage::default() }
}

fn source(state: &State, origin: &Origin) -> PullSource {
    let known =
        asked_for(state, origin).filter_map(|name| Some((name.to_string(), state.registry(name)?.into())));
    let registries: BTreeMap<String, wire::proto::model::Registry> = known.collect();
    PullSource { origin: origin.to_string(), registries }
}

#[cfg(test)]
mod tests {
    use model::{Credential, Secret};
    use state::{Command, Proposal, RegistryChange};

    use super::*;
    use crate::fixture::World;

    const IMAGE: Digest = Digest([1; 32]);

    fn registry(name: &str) -> RegistryName {
        name.parse().expect("the name of a registry")
    }

    fn log_in(registry_name: &str, password: &str) -> Command {
        let secret = Secret::Password(password.to_owned());
        let credential = Credential { username: "me".to_owned(), secret };
        Command::PutRegistry { registry: registry(registry_name), change: RegistryChange::LogIn(credential) }
    }

    /// What each of `n1` and `n2` is told of a command's changes.
    fn told(world: &mut World, command: Command) -> [Option<Delta>; 2] {
        let proposal = Proposal { at: world.now, request: None, by: None, commands: vec![command] };
        let changes = world.propose(&proposal).changes;
        ["n1", "n2"].map(|name| delta(&world.state, world.node(name), 0, &changes))
    }

    fn world() -> World {
        World::of(
            "nodes n1 n2
             pinned app
             service hello/web x1 image=app
             deploy
             settle",
        )
    }

    fn passwords(delta: &Delta) -> Vec<String> {
        let sources = delta.tasks.iter().filter_map(|task| task.image.as_ref()?.source.as_ref());
        let known = sources.flat_map(|source| &source.registries);
        let kept = known.filter_map(|(name, registry)| {
            let credential = Credential::try_from(registry.credential.clone()?).ok()?;
            let Secret::Password(password) = credential.secret else { return None };
            Some(format!("{name} {password}"))
        });
        kept.collect()
    }

    #[test]
    fn a_password_that_changes_is_told_where_the_image_is_needed_and_nowhere_else() {
        let mut world = world();
        let task = world.task("web.1");
        let on =
            world.state.task(task).and_then(|task| task.placement.as_ref()).map(|placement| placement.node);
        let [one, two] = told(&mut world, log_in("docker.io", "first"));
        let (there, elsewhere) = if on == Some(world.node("n1")) { (one, two) } else { (two, one) };
        assert_eq!(passwords(&there.expect("it needs the image")), ["docker.io first"]);
        assert_eq!(elsewhere, None);
        let unconcerned = told(&mut world, log_in("other.lan", "second"));
        assert_eq!(unconcerned, [None, None]);
        // A mirror is asked in the registry's place.
        let mirrors = vec![registry("other.lan")];
        let change = RegistryChange::Settings { mirrors, ca: Vec::new(), insecure: false };
        told(&mut world, Command::PutRegistry { registry: registry("docker.io"), change });
        let mirrored = told(&mut world, log_in("other.lan", "third"));
        let mirrored: Vec<String> = mirrored.iter().flatten().flat_map(passwords).collect();
        assert_eq!(mirrored, ["docker.io first", "other.lan third"]);
    }

    #[test]
    fn who_holds_an_image_or_is_done_with_it_is_told_no_password() {
        let mut world = world();
        world.must(log_in("docker.io", "first"));
        let placed = world.state.task(world.task("web.1")).and_then(|task| task.placement.clone());
        let node = placed.expect("it runs").node;
        world.must(Command::ReportImages { node, held: vec![IMAGE] });
        let whole = whole(&world.state, node, &[]);
        let [image] = &whole.images[..] else { panic!("one image is held: {:?}", whole.images) };
        assert!(image.optional);
        let source = image.source.as_ref().expect("a registry has it");
        assert!(source.origin == "docker.io/library/app" && source.registries.is_empty());
        world.run("scale web 0\n plan");
        let whole = super::whole(&world.state, node, &[]);
        assert!(
            whole.tasks.iter().all(|task| task.image.as_ref().is_some_and(|image| image.source.is_none()))
        );
    }

    #[test]
    fn holders_that_are_down_are_asked_last() {
        let mut world = World::of("nodes n1 n2 n3\n image app on n1 n2 n3");
        world.must(Command::SetLiveness { node: world.node("n1"), ready: false });
        let whole = whole(&world.state, world.node("n3"), &[]);
        let [image] = &whole.images[..] else { panic!("one image is held: {:?}", whole.images) };
        let asked: Vec<u64> = image.holders.iter().map(|holder| holder.node).collect();
        assert_eq!(asked, ["n2", "n3", "n1"].map(|name| world.node(name).0));
    }

    #[test]
    fn of_what_a_registry_has_few_holders_are_told_and_of_anything_else_all() {
        let nodes = "nodes n1 n2 n3 n4 n5 n6 n7";
        for (image, told) in
            [("pull app\n held app by n1 n2 n3 n4 n5 n6 n7", 5), ("image app on n1 n2 n3 n4 n5 n6 n7", 7)]
        {
            let world = World::of(&format!("{nodes}\n {image}"));
            let whole = whole(&world.state, world.node("n7"), &[]);
            let [image] = &whole.images[..] else { panic!("one image is held: {:?}", whole.images) };
            assert_eq!(image.holders.len(), told);
        }
    }

    #[test]
    fn of_three_copies_two_are_to_last_whoever_is_up() {
        let mut world = World::of("nodes n1 n2 n3\n image app on n1 n2 n3");
        let optional = |world: &World, name: &str| -> Vec<bool> {
            whole(&world.state, world.node(name), &[]).images.iter().map(|image| image.optional).collect()
        };
        assert_eq!((optional(&world, "n2"), optional(&world, "n3")), (vec![false], vec![true]));
        let down = Command::SetLiveness { node: world.node("n2"), ready: false };
        let changes =
            world.propose(&Proposal { at: world.now, request: None, by: None, commands: vec![down] }).changes;
        let told = delta(&world.state, world.node("n3"), 0, &changes).expect("it has to keep its copy now");
        assert_eq!(told.images.iter().map(|image| image.optional).collect::<Vec<_>>(), [false]);
    }
}
