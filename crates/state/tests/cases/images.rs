//! Images that registries have, what their names stand for, and registries.

use model::{Bytes, Credential, Digest, ImageName, RegistryName, Secret, Timestamp};
use state::{Change, Command, Done, Proposal, RegistryChange, State, Tag};

use crate::fixture::{World, image_name};

const FIRST: Digest = Digest([1; 32]);
const SECOND: Digest = Digest([2; 32]);

fn said(name: &ImageName, image: Digest, automatic: bool) -> Command {
    let origin = Some("docker.io/library/app".parse().expect("a repository"));
    Command::NameImage { name: name.clone(), image, size: Bytes(0), origin, automatic }
}

fn tag(world: &World, name: &ImageName) -> (Digest, Option<Timestamp>, bool) {
    let Tag { image, asked, automatic } = *world.state.tag(name).expect("it has been named");
    (image, asked, automatic)
}

#[test]
fn a_registrys_word_is_kept_with_when_it_was_asked() {
    let (mut world, name) = (World::of("nodes n1"), image_name("app"));
    let first = world.now;
    world.must(said(&name, FIRST, true));
    assert_eq!(tag(&world, &name), (FIRST, Some(first), true));
    let image = world.state.image(FIRST).expect("it was just named");
    assert_eq!(image.origin.as_ref().map(ToString::to_string).as_deref(), Some("docker.io/library/app"));
    assert!(image.copies.is_empty());
    world.run("tick 5s");
    // That it still is so is news as well.
    assert_eq!(world.must(said(&name, FIRST, true)), Done::Changed);
    assert_eq!(tag(&world, &name), (FIRST, Some(world.now), true));
    assert_eq!(world.must(said(&name, FIRST, true)), Done::Unchanged);
    world.must(said(&name, SECOND, false));
    world.must(said(&name, SECOND, true));
    assert!(!tag(&world, &name).2, "what was asked for by hand stays so");
}

#[test]
fn an_import_takes_a_name_from_a_registry() {
    let (mut world, name) = (World::of("nodes n1"), image_name("app"));
    world.must(said(&name, FIRST, true));
    world.run("image app on n1");
    assert_eq!(tag(&world, &name), (FIRST, None, false));
    let image = world.state.image(FIRST).expect("it is there");
    assert!(image.origin.is_some(), "the registry has it all the same");
    assert_eq!(image.size, Bytes(10 << 20));
    // Another name for it knows when the registry was asked only if the registry was.
    let other = image_name("other");
    let named = Command::NameImage {
        name: other.clone(),
        image: FIRST,
        size: Bytes(0),
        origin: None,
        automatic: false,
    };
    world.must(named);
    assert_eq!(tag(&world, &other), (FIRST, None, false));
    assert_eq!(world.state.image(FIRST).map(|image| image.size), Some(Bytes(10 << 20)));
}

#[test]
fn an_image_is_idle_from_its_last_use_on() {
    let mut world = World::of("nodes n1\n pinned app\n service hello/web x1\n deploy\n settle");
    let idle = |world: &World| world.state.image(FIRST).map(|image| image.idle);
    assert_eq!(idle(&world), Some(None));
    world.run("rm hello");
    assert_eq!(idle(&world), Some(None), "its tasks may still be starting");
    world.run("tick 5s\n settle");
    let since = world.now;
    world.run("tick 5s\n image other on n1\n settle");
    assert_eq!(idle(&world), Some(Some(since)));
    world.run("service hello/web x1\n deploy");
    assert_eq!(idle(&world), Some(None));
}

#[test]
fn what_was_deployed_and_named_in_one_proposal_is_one_step() {
    let mut world = World::of("nodes n1\n service hello/web x1\n deploy");
    let web = world.service("web");
    let mut spec = world.state.service(web).expect("it was just found").spec.clone();
    spec.task.image = image_name("new");
    let services =
        [("web".parse().expect("a name"), state::Declared { spec, image: SECOND, keep_replicas: false })]
            .into();
    let deploy = Command::Deploy { stack: "hello".parse().expect("a name"), services, expected: None };
    let commands = vec![said(&image_name("new"), SECOND, true), deploy];
    let outcomes = world.propose(&Proposal { at: world.now, request: None, by: None, commands }).outcomes;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let service = world.state.service(web).expect("it was just found");
    assert_eq!(service.templates[&service.version].image, SECOND);
    assert_eq!(world.state.image(SECOND).and_then(|image| image.idle), None);
}

#[test]
fn a_copy_of_what_a_registry_has_is_not_asked_for_again() {
    let mut world = World::of("nodes n1\n pull app\n held app by n1");
    let node = world.node("n1");
    assert!(!world.state.must_hold(FIRST, node));
    world.must(Command::ReportImages { node, held: Vec::new() });
    assert!(world.state.image(FIRST).is_some_and(|image| image.copies.is_empty()));
}

fn registry(world: &World) -> Option<model::Registry> {
    world.state.registry(&name()).cloned()
}

fn name() -> RegistryName {
    "reg.lan".parse().expect("the name of a registry")
}

fn put(change: RegistryChange) -> Command {
    Command::PutRegistry { registry: name(), change }
}

#[test]
fn logging_in_and_settings_leave_one_another_alone() {
    let mut world = World::new();
    let mirror: RegistryName = "mirror.lan".parse().expect("the name of a registry");
    let settings = RegistryChange::Settings {
        mirrors: vec![mirror.clone()],
        ca: vec!["a certificate".to_owned()],
        insecure: true,
    };
    let credential = Credential { username: "me".to_owned(), secret: Secret::Password("pw".to_owned()) };
    let log_in = RegistryChange::LogIn(credential.clone());
    assert_eq!(world.must(put(log_in.clone())), Done::Changed);
    assert_eq!(world.must(put(settings.clone())), Done::Changed);
    assert_eq!(world.must(put(settings.clone())), Done::Unchanged);
    assert_eq!(world.must(put(log_in)), Done::Unchanged);
    let expected = model::Registry {
        mirrors: vec![mirror],
        ca: vec!["a certificate".to_owned()],
        insecure: true,
        credential: Some(credential),
    };
    assert_eq!(registry(&world), Some(expected.clone()));
    assert!(State::from_rows(world.state.rows()) == world.state);
    world.must(put(RegistryChange::LogOut));
    assert_eq!(registry(&world), Some(model::Registry { credential: None, ..expected }));
    // What is as everywhere needs no row.
    world.must(put(RegistryChange::Settings { mirrors: Vec::new(), ca: Vec::new(), insecure: false }));
    assert_eq!(registry(&world), None);
}

#[test]
fn who_changes_a_registry_says_so() {
    let mut world = World::new();
    let insecure = RegistryChange::Settings { mirrors: Vec::new(), ca: Vec::new(), insecure: true };
    for command in [put(insecure), Command::RemoveRegistry { registry: name() }] {
        let applied =
            world.propose(&Proposal { at: world.now, request: None, by: None, commands: vec![command] });
        assert_eq!(applied.changes, [Change::Registry(name())].into());
    }
    assert_eq!(registry(&world), None);
}
