//! Two nodes that are up hold every image that is wanted.

use expect_test::expect;
use model::Digest;

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
