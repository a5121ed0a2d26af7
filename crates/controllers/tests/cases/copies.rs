//! Two nodes that are up hold every image that is wanted.

use expect_test::expect;
use model::Digest;
use state::Command;

use crate::fixture::{World, check_plan};

#[test]
fn an_image_is_copied_to_a_second_node() {
    check_plan(
        "nodes n1 n2 n3
         image nginx on n1",
        expect![[r#"
            keep nginx:latest on n2
        "#]],
    );
}

#[test]
fn a_copy_that_is_under_way_is_not_asked_for_again() {
    check_plan(
        "nodes n1 n2 n3
         image nginx on n1
         plan",
        expect![[r#"
            nothing
        "#]],
    );
}

#[test]
fn a_copy_goes_to_the_node_with_the_fewest_images() {
    check_plan(
        "nodes n1 n2 n3
         image app on n1 n2
         image nginx on n1",
        expect![[r#"
            keep nginx:latest on n3
        "#]],
    );
}

#[test]
fn a_holder_that_is_lost_is_replaced() {
    check_plan(
        "nodes n1 n2 n3
         image nginx on n1 n2
         down n2",
        expect![[r#"
            keep nginx:latest on n3
        "#]],
    );
}

#[test]
fn a_holder_that_is_lost_before_it_had_its_copy_is_replaced() {
    check_plan(
        "nodes n1 n2 n3
         image nginx on n1
         plan
         down n2",
        expect![[r#"
            keep nginx:latest on n3
        "#]],
    );
}

#[test]
fn nobody_is_asked_to_copy_what_no_node_that_is_up_has() {
    check_plan(
        "nodes n1 n2 n3
         image nginx on n1 n2
         down n1 n2",
        expect![[r#"
            nothing
        "#]],
    );
}

#[test]
fn a_second_copy_waits_for_a_second_node() {
    let mut world = World::of("nodes n1\n image nginx on n1");
    assert_eq!(world.plan(), "nothing\n");
    world.run("nodes n2");
    expect![[r#"
        keep nginx:latest on n2
    "#]]
    .assert_eq(&world.plan());
}

#[test]
fn an_image_without_a_name_is_forgotten_once_its_holders_have_dropped_it() {
    let unnamed = "nodes n1 n2\n image nginx on n1 n2\n untag nginx\n";
    check_plan(
        unnamed,
        expect![[r#"
            nothing
        "#]],
    );
    check_plan(
        &format!("{unnamed} agents"),
        expect![[r#"
            drop image 010101010101
        "#]],
    );
}

#[test]
fn an_image_stays_while_a_service_is_made_from_it() {
    let mut world = World::of(
        "nodes n1 n2
         image nginx on n1 n2
         service hello/web x1 image=nginx
         deploy
         settle
         image nginx on n1 n2
         settle",
    );
    let first = Digest([1; 32]);
    assert!(
        world.state.image(first).is_some_and(|image| image.copies.len() == 2),
        "the service still needs it"
    );
    world.run("rm hello\n settle");
    assert!(world.state.image(first).is_none(), "nothing names or needs it any more");
    assert!(world.state.image(Digest([2; 32])).is_some());
}

#[test]
fn what_a_registry_has_needs_no_second_copy() {
    check_plan(
        "nodes n1 n2 n3
         pull nginx
         held nginx by n1",
        expect![[r#"
            nothing
        "#]],
    );
}

#[test]
fn a_name_that_only_a_deploy_asked_for_goes_a_week_after_its_use() {
    let mut world = World::of(
        "nodes n1 n2
         pinned nginx
         service hello/web x1 image=nginx
         deploy
         settle
         held nginx by n1
         rm hello
         settle",
    );
    let image = Digest([1; 32]);
    expect![[r#"
        nginx:latest wakes in 604800s
    "#]]
    .assert_eq(&world.plan());
    world.run("tick 167h");
    expect![[r#"
        nginx:latest wakes in 3600s
    "#]]
    .assert_eq(&world.plan());
    world.run("tick 1h");
    expect![[r#"
        forget nginx:latest
    "#]]
    .assert_eq(&world.plan());
    assert!(world.state.image(image).is_some(), "a node holds it");
    world.run("settle");
    assert!(world.state.image(image).is_none());
}

#[test]
fn a_name_that_is_used_again_within_the_week_stays() {
    let mut world = World::of(
        "nodes n1
         pinned nginx
         service hello/web x1 image=nginx
         deploy
         settle
         rm hello
         settle
         tick 100h
         service hello/web x1 image=nginx
         deploy
         settle
         tick 100h",
    );
    expect![[r#"
        nothing
    "#]]
    .assert_eq(&world.plan());
}

#[test]
fn what_was_pulled_by_hand_stays() {
    let mut world = World::of("nodes n1\n pull nginx\n tick 1000h");
    expect![[r#"
        nothing
    "#]]
    .assert_eq(&world.plan());
}

#[test]
fn a_name_stays_as_long_as_a_service_calls_its_image_so() {
    let mut world = World::of(
        "nodes n1
         pinned nginx
         service hello/web x1 image=nginx
         deploy
         settle
         pinned nginx
         tick 200h",
    );
    let moved = Digest([2; 32]);
    assert!(world.state.image(moved).is_some_and(|image| image.idle.is_some()), "the service runs the first");
    expect![[r#"
        nothing
    "#]]
    .assert_eq(&world.plan());
    world.run("service hello/web x1 image=other\n deploy\n settle");
    assert!(world.state.image(moved).is_none(), "now nobody does");
}

#[test]
fn of_three_copies_the_third_may_go_and_two_that_are_up_may_not() {
    let mut world = World::of("nodes n1 n2 n3\n image nginx on n1 n2 n3");
    let image = Digest([1; 32]);
    let kept = |world: &World| -> Vec<bool> {
        ["n1", "n2", "n3"].map(|name| world.state.must_hold(image, world.node(name))).into()
    };
    assert_eq!(kept(&world), [true, true, false]);
    world.run("down n1");
    assert_eq!(kept(&world), [false, true, true]);
    world.run("down n2 n3");
    assert_eq!(kept(&world), [true, true, false]);
    world.run("up n1 n2 n3");
    // The third lets go of it, and nobody is asked for another.
    let node = world.node("n3");
    world.must(Command::ReportImages { node, held: Vec::new() });
    expect![[r#"
        nothing
    "#]]
    .assert_eq(&world.plan());
    // One of two is told to fetch it again.
    let node = world.node("n2");
    world.must(Command::ReportImages { node, held: Vec::new() });
    assert_eq!(world.state.image(image).map(|image| image.copies.get(&node).copied()), Some(Some(None)));
}
