//! What would be better off on another node, case by case. The language is [`fixture`]'s.

#[expect(dead_code, reason = "some of it is for the other tests")]
#[path = "../../controllers/tests/fixture/mod.rs"]
mod fixture;

use std::fmt::Write as _;

use expect_test::{Expect, expect};

use fixture::World;
use scheduler::{Move, rebalance};

fn moves(world: &World) -> String {
    let mut text = String::new();
    for Move { task, from, to, why } in rebalance(&world.state, usize::MAX) {
        let node = |id| world.state.node(id).expect("a node").name.to_string();
        let service = &world.state.service(task.service).expect("a service").name.service;
        writeln!(text, "{service}.{}: {} -> {}: {why}", task.slot, node(from), node(to))
            .expect("writing to a string cannot fail");
    }
    text
}

/// What is moved, and that nothing is once that is done.
fn check(fixture: &str, expect: &Expect) {
    let mut world = World::of(fixture);
    expect.assert_eq(&moves(&world));
    world.run("rebalance\n settle");
    assert_eq!(moves(&world), "", "it is even then");
    assert_eq!(world.plan(), "nothing\n", "and settled");
}

#[test]
fn a_node_that_came_later_gets_its_share() {
    check(
        "nodes n1 n2
         service hello/web x6
         deploy
         settle
         nodes n3",
        &expect![[r#"
            web.5: n1 -> n3: 3 of it here, and 0 there
            web.6: n2 -> n3: 3 of it here, and 1 there
        "#]],
    );
}

#[test]
fn what_starts_first_moves_as_well() {
    check(
        "nodes n1
         service hello/web x4 order=start-first
         deploy
         settle
         nodes n2",
        &expect![[r#"
            web.4: n1 -> n2: 4 of it here, and 0 there
            web.3: n1 -> n2: 3 of it here, and 1 there
        "#]],
    );
}

#[test]
fn services_of_one_task_are_evened_out_by_what_they_reserve() {
    check(
        "nodes n1 cpu=8
         service hello/a x1 cpu=1
         service hello/b x1 cpu=1
         service hello/c x1 cpu=2
         service hello/d x1 cpu=2
         deploy
         settle
         nodes n2 cpu=8",
        &expect![[r#"
            a.1: n1 -> n2: 75 % reserved here, and 0 % there
            b.1: n1 -> n2: 62 % reserved here, and 12 % there
        "#]],
    );
}

#[test]
fn services_are_evened_out_before_nodes_are() {
    check(
        "nodes n1 n2
         service hello/db x4
         service hello/web x6
         deploy
         settle
         nodes n3",
        &expect![[r#"
            db.3: n1 -> n3: 2 of it here, and 0 there
            web.6: n2 -> n3: 3 of it here, and 0 there
            web.5: n1 -> n3: 3 of it here, and 1 there
        "#]],
    );
}

#[test]
fn services_that_reserve_nothing_are_counted() {
    check(
        "nodes n1
         service hello/a x1
         service hello/b x1
         service hello/c x1
         deploy
         settle
         nodes n2",
        &expect![[r#"
            a.1: n1 -> n2: 3 tasks here, and 0 there
        "#]],
    );
}

#[test]
fn zones_come_before_nodes() {
    check(
        "nodes n1 n2 zone=a
         service hello/web x6 spread=node.labels.zone
         deploy
         settle
         nodes n3 zone=b",
        &expect![[r#"
            web.5: n1 -> n3: 6 of it with node.labels.zone a, and 0 with b
            web.6: n2 -> n3: 5 of it with node.labels.zone a, and 1 with b
            web.3: n1 -> n3: 4 of it with node.labels.zone a, and 2 with b
        "#]],
    );
}

#[test]
fn what_is_even_what_is_tied_and_what_is_packed_stays() {
    check(
        r#"nodes n1 n2 n3
           service hello/even x4
           service hello/tied x3 constraint "node.hostname == n1"
           service hello/all global
           service hello/packed x3 strategy=binpack
           deploy
           settle"#,
        &expect![[r#"
            even.4: n1 -> n2: 9 tasks here, and 2 there
        "#]],
    );
}

#[test]
fn what_others_have_to_be_near_stays_with_them() {
    check(
        "nodes n1
         service hello/db x4
         service hello/web x2 near=db
         deploy
         settle
         nodes n2",
        &expect![[""]],
    );
}

#[test]
fn nothing_goes_where_there_is_no_room() {
    check(
        "nodes n1 cpu=4
         service hello/web x4 cpu=1
         deploy
         settle
         nodes n2 cpu=1",
        &expect![[r#"
            web.4: n1 -> n2: 4 of it here, and 0 there
        "#]],
    );
}

#[test]
fn what_nobody_else_takes_any_more_stays_where_it_is() {
    let mut world = World::of(
        "nodes n1
         service hello/web x2
         deploy
         settle
         nodes n2
         settle
         move web.1
         hold n2",
    );
    assert_eq!(world.plan(), "nothing\n");
    world.run("activate n2");
    expect![[r#"
        stop web.1#1
    "#]]
    .assert_eq(&world.plan());
}
