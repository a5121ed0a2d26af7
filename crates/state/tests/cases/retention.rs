//! What is forgotten, and when.

use model::{Desired, SpecVersion};
use state::Command;

use crate::fixture::World;

/// The sequence numbers of all tasks, by slot and then by age.
fn sequences(world: &World) -> Vec<u64> {
    world.state.tasks().map(|(id, _)| id.sequence).collect()
}

#[test]
fn a_slot_keeps_five_ended_tasks_and_drops_the_oldest() {
    let mut world = World::of("nodes n1\n service hello/web x1\n deploy\n settle");
    for _ in 0..8 {
        world.run("report web.1 failing\n plan\n tick 2m\n settle");
    }
    // Eight have ended and the ninth runs.
    assert_eq!(sequences(&world), [4, 5, 6, 7, 8, 9]);
}

#[test]
fn each_slot_keeps_its_own() {
    let mut world = World::of("nodes n1\n service hello/web x2\n deploy\n settle");
    for _ in 0..8 {
        world.run("report web.2 failing\n plan\n tick 2m\n settle");
    }
    world.run("report web.1 failing\n plan");
    let web = world.service("web");
    let ended = |slot| {
        world.state.tasks_of(web).filter(|(id, task)| id.slot == slot && task.ended().is_some()).count()
    };
    assert_eq!((ended(1), ended(2)), (1, 5));
}

#[test]
fn tasks_that_never_had_a_node_count_as_ended_ones() {
    let mut world = World::of("nodes n1");
    for version in 0..10 {
        world.run(&format!("service hello/web x1 command=v{version} cpu=1000\n deploy\n plan\n place"));
    }
    // Nine were cancelled by the next version, of which five are kept; the tenth waits.
    assert_eq!(sequences(&world), [5, 6, 7, 8, 9, 10]);
    assert!(
        world.tasks().lines().take(5).all(|line| line.ends_with("to be stopped, is cancelled")),
        "{}",
        world.tasks()
    );
}

#[test]
fn a_task_to_be_removed_is_dropped_when_it_is_seen_stopped() {
    let mut world = World::of("nodes n1\n service hello/web x2\n deploy\n settle\n scale web 1\n plan");
    assert_eq!(sequences(&world), [1, 2]);
    // It may still do as it likes, and has not stopped.
    world.run("report web.2 stopping\n report web.2 exited");
    assert_eq!(sequences(&world), [1, 2]);
    world.run("report web.2 stopped");
    assert_eq!(sequences(&world), [1]);
}

#[test]
fn a_task_that_ended_already_is_dropped_when_it_is_to_be_removed() {
    let mut world =
        World::of("nodes n1\n service hello/web x1 restart=never\n deploy\n settle\n report web.1 completed");
    let remove = Command::SetDesired { task: world.task("web.1"), desired: Desired::Removed };
    world.must(remove);
    assert_eq!(world.state.tasks().count(), 0);
}

#[test]
fn a_task_without_a_node_is_dropped_when_it_is_to_be_removed() {
    let mut world = World::of("nodes n1\n service hello/web x1\n deploy\n plan");
    let remove = Command::SetDesired { task: world.task("web.1"), desired: Desired::Removed };
    world.must(remove);
    assert_eq!(world.state.tasks().count(), 0);
    assert_eq!(world.state.unplaced().count(), 0);
}

#[test]
fn a_lost_node_keeps_its_rows() {
    // Whoever comes back must be told to stop, so nothing is forgotten before it is seen stopped.
    let mut world = World::of("nodes n1 n2\n service hello/web x2\n deploy\n settle\n down n2\n settle");
    world.run("tick 24h\n scale web 0\n settle\n tick 24h\n settle");
    assert_eq!(world.tasks(), "web.2#2 v1 on n2: to be removed, is lost\n");
}

#[test]
fn a_service_keeps_ten_versions_besides_its_own() {
    let mut world = World::of("nodes n1\n service hello/web x0 command=v0\n deploy");
    for version in 1..15 {
        world.run(&format!("service hello/web x0 command=v{version}\n deploy"));
    }
    assert_eq!(versions(&world), (5..=15).map(SpecVersion).collect::<Vec<_>>());
}

#[test]
fn a_version_that_a_task_is_made_from_is_kept_as_long_as_the_task() {
    // Nobody plans, so the task of the first version runs on.
    let mut world = World::of("nodes n1\n service hello/web x1 command=v0\n deploy\n settle");
    for version in 1..15 {
        world.run(&format!("service hello/web x1 command=v{version}\n deploy"));
    }
    let kept: Vec<SpecVersion> = [1].into_iter().chain(6..=15).map(SpecVersion).collect();
    assert_eq!(versions(&world), kept);
    let template =
        world.state.template_of(world.task("web.1#1")).map(|template| template.task.command.clone());
    assert_eq!(template, Some(Some(vec!["v0".to_owned()])));
}

fn versions(world: &World) -> Vec<SpecVersion> {
    let service = world.state.service(world.service("web")).expect("it was just found");
    service.templates.keys().copied().collect()
}
