//! Services on their way out.

use expect_test::expect;

use crate::fixture::{World, check_plan};

const GOING: &str = "nodes n1 n2 n3
    service hello/web x3
    deploy
    settle\n";

#[test]
fn a_removed_service_loses_every_task() {
    check_plan(
        &format!("{GOING} rm hello"),
        expect![[r#"
            remove web.1#1
            remove web.2#2
            remove web.3#3
        "#]],
    );
}

#[test]
fn a_removed_service_is_forgotten_when_its_last_task_is_gone() {
    check_plan(
        &format!("{GOING} rm hello\n plan\n agents"),
        expect![[r#"
            drop service web
        "#]],
    );
}

#[test]
fn a_removed_service_leaves_no_row() {
    let mut world = World::of(&format!("{GOING} report web.1 failing\n plan\n rm hello\n settle"));
    assert_eq!(world.state.stacks().count(), 0);
    assert_eq!(world.state.services().count(), 0);
    assert_eq!(world.state.tasks().count(), 0);
    assert_eq!(world.plan(), "nothing\n");
}

#[test]
fn a_service_that_never_ran_is_forgotten_in_one_pass() {
    check_plan(
        "nodes n1
         service hello/web x2
         deploy
         plan
         rm hello",
        expect![[r#"
            remove web.1#1
            remove web.2#2
            then
            drop service web
        "#]],
    );
}

#[test]
fn a_removed_service_waits_for_a_node_that_is_down() {
    let waiting = format!("{GOING} down n2\n rm hello\n plan\n agents\n");
    check_plan(
        &waiting,
        expect![[r#"
            nothing
        "#]],
    );
    check_plan(
        &format!("{waiting} up n2\n agents"),
        expect![[r#"
            drop service web
        "#]],
    );
}

#[test]
fn a_service_that_the_file_no_longer_has_goes_and_the_others_stay() {
    check_plan(
        "nodes n1
         service hello/web x1
         service hello/old x1
         deploy
         settle
         without hello/old
         deploy",
        // `old` is the first by name, so it has the first id.
        expect![[r#"
            remove old.1#1
        "#]],
    );
}

#[test]
fn a_name_is_free_while_its_last_service_is_on_its_way_out() {
    check_plan(
        "nodes n1
         service hello/web x1
         deploy
         settle
         rm hello
         service hello/web x1
         deploy",
        expect![[r#"
            remove web.1#1
            create web.1#1 v1
        "#]],
    );
}
