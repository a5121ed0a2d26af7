//! Services that wait for others.

use expect_test::expect;

use crate::fixture::{World, check_plan};

#[test]
fn a_service_waits_until_what_it_depends_on_has_started() {
    let stack = "nodes n1\n service hello/db x2\n service hello/web x2 after=db\n deploy\n";
    check_plan(
        stack,
        expect![[r#"
        create db.1#1 v1
        create db.2#2 v1
        web slot 1 waits until db has started
        web slot 2 waits until db has started
    "#]],
    );
    check_plan(
        &format!("{stack} plan\n place\n report db.1 starting\n report db.2 preparing"),
        expect![[r#"
            web slot 1 waits until db has started
            web slot 2 waits until db has started
        "#]],
    );
    check_plan(
        &format!("{stack} plan\n place\n report db.1 starting\n report db.2 running"),
        expect![[r#"
        create web.1#1 v1
        create web.2#2 v1
    "#]],
    );
}

#[test]
fn or_until_it_is_healthy() {
    let stack =
        "nodes n1\n service hello/db x1\n service hello/web x1 after-healthy=db\n deploy\n plan\n place\n";
    check_plan(
        &format!("{stack} report db.1 starting"),
        expect![[r#"
        web slot 1 waits until db is healthy
    "#]],
    );
    check_plan(
        &format!("{stack} report db.1 unready"),
        expect![[r#"
        web slot 1 waits until db is healthy
    "#]],
    );
    check_plan(
        &format!("{stack} report db.1 running"),
        expect![[r#"
        rollout of db to v1 completed
        create web.1#1 v1
    "#]],
    );
}

#[test]
fn or_until_it_has_completed() {
    let stack = "nodes n1\n service hello/migrate x1 job\n service hello/web x1 after-completed=migrate\n deploy\n settle\n";
    check_plan(
        stack,
        expect![[r#"
        web slot 1 waits until migrate has completed successfully
    "#]],
    );
    check_plan(
        &format!("{stack} report migrate.1 completed\n plan"),
        expect![[r#"
        nothing
    "#]],
    );
    let failed = format!("{stack} report migrate.1 gaveup\n settle");
    check_plan(
        &failed,
        expect![[r#"
        web slot 1 waits until migrate has completed successfully
    "#]],
    );
    check_plan(
        &format!("{failed}\n run migrate\n settle\n report migrate.1 completed\n plan"),
        expect![[r#"
            nothing
        "#]],
    );
    let once = "nodes n1\n service hello/seed x1 restart=on-failure\n service hello/web x1 after-completed=seed\n deploy\n settle\n";
    check_plan(
        once,
        expect![[r#"
        web slot 1 waits until seed has completed successfully
    "#]],
    );
    check_plan(
        &format!("{once} report seed.1 completed\n plan"),
        expect![[r#"
        seed slot 1 has completed
    "#]],
    );
}

#[test]
fn a_chain_is_begun_from_its_end() {
    let mut world = World::of(
        "nodes n1\n service hello/a x1 after=b\n service hello/b x1 after-healthy=c\n service hello/c x1\n deploy",
    );
    let mut seen = String::new();
    for _ in 0..4 {
        seen += &world.plan();
        seen += "--\n";
        world.place();
        world.agents();
    }
    expect![[r#"
        a slot 1 waits until b has started
        b slot 1 waits until c is healthy
        create c.1#1 v1
        --
        a slot 1 waits until b has started
        create b.1#1 v1
        rollout of c to v1 completed
        --
        create a.1#1 v1
        rollout of b to v1 completed
        --
        rollout of a to v1 completed
        --
    "#]]
    .assert_eq(&seen);
}

#[test]
fn what_runs_does_not_wait_again() {
    let up = "nodes n1 n2\n service hello/db x1\n service hello/web x2 after-healthy=db\n deploy\n settle\n report db.1 unready\n";
    check_plan(
        &format!("{up} scale web 3"),
        expect![[r#"
        create web.3#3 v1
    "#]],
    );
    check_plan(
        &format!("{up} report web.1 failing\n tick 2s"),
        expect![[r#"
        conclude web.1#1 ended
        create web.1#3 v1 avoid n2
    "#]],
    );
    // After all have gone down it begins as it did at first.
    check_plan(
        &format!("{up} report web.1 failing\n report web.2 failing\n tick 2s"),
        expect![[r#"
            conclude web.1#1 ended
            conclude web.2#2 ended
            web slot 1 waits until db is healthy
            web slot 2 waits until db is healthy
            web wakes in 118s
        "#]],
    );
}

#[test]
fn after_all_have_gone_down_the_wait_has_a_bound() {
    let down = "nodes n1 n2\n service hello/db x1\n service hello/web x1 after-healthy=db\n deploy\n settle
         report db.1 unready\n report web.1 failing\n plan";
    check_plan(
        down,
        expect![[r#"
        web slot 1 keeps failing and waits before it is tried again
        web wakes in 1s
    "#]],
    );
    check_plan(
        &format!("{down}\n tick 2s"),
        expect![[r#"
        web slot 1 waits until db is healthy
        web wakes in 118s
    "#]],
    );
    check_plan(
        &format!("{down}\n tick 2m"),
        expect![[r#"
        create web.1#2 v1 avoid n2
    "#]],
    );
}

#[test]
fn at_first_the_wait_ends_with_the_progress_deadline_and_what_comes_late_is_begun_all_the_same() {
    let late = "nodes n1\n service hello/db x1\n service hello/web x1 after-healthy=db deadline=60s\n deploy\n plan\n place
         report db.1 unready\n plan\n tick 60s";
    check_plan(
        late,
        expect![[r#"
        rollout of web to v1 failed: no further slot was done within 60 s; 1 of 1 are left: slot 1 waits until db is healthy
        web slot 1 waits until db is healthy
    "#]],
    );
    check_plan(
        &format!("{late}\n plan\n tick 1h"),
        expect![[r#"
        web slot 1 waits until db is healthy
    "#]],
    );
    check_plan(
        &format!("{late}\n plan\n report db.1 running"),
        expect![[r#"
        rollout of db to v1 completed
        create web.1#1 v1
    "#]],
    );
}

#[test]
fn a_new_version_waits_and_what_goes_back_does_not() {
    let up = "nodes n1
         service hello/migrate x1 job
         service hello/web x1 after-completed=migrate
         deploy
         settle
         report migrate.1 completed
         settle
         service hello/migrate x1 job command=two
         service hello/web x1 after-completed=migrate command=two
         deploy
         settle\n";
    check_plan(
        up,
        expect![[r#"
        web slot 1 waits until migrate has completed successfully
    "#]],
    );
    check_plan(
        &format!("{up} report migrate.1 completed\n plan"),
        expect![[r#"
        web slot 1 waits until task s2-1-1 has stopped
    "#]],
    );
    check_plan(
        &format!("{up} report migrate.1 gaveup\n settle\n abort web"),
        expect![[r#"
        rollout of web to v1 completed
    "#]],
    );
}

#[test]
fn a_job_waits_too_and_not_once_it_is_begun() {
    let stack = "nodes n1 n2\n service hello/db x1\n service hello/job x1 job after-healthy=db\n deploy\n";
    check_plan(
        stack,
        expect![[r#"
        create db.1#1 v1
        job slot 1 waits until db is healthy
    "#]],
    );
    check_plan(
        &format!("{stack} settle\n report db.1 unready\n report job.1 failing\n tick 2s"),
        expect![[r#"
            conclude job.1#1 ended
            create job.1#2 v1 for run 1 avoid n2
        "#]],
    );
}

#[test]
fn nobody_waits_for_what_is_not_there_or_has_no_slots() {
    check_plan(
        "nodes n1\n service hello/web x1 after=db\n deploy",
        expect![[r#"
        create web.1#1 v1
    "#]],
    );
    check_plan(
        "nodes n1\n service hello/db x0\n service hello/web x1 after-healthy=db\n deploy",
        expect![[r#"
            rollout of db to v1 completed
            create web.1#1 v1
        "#]],
    );
}

#[test]
fn what_is_on_a_node_that_is_down_has_not_started() {
    check_plan(
        "nodes n1\n nodes n2 disk=ssd
         service hello/db x1 constraint \"node.labels.disk == ssd\"
         service hello/web x1 after=db
         deploy
         plan
         place
         agents
         down n2",
        expect![[r#"
            create db.1#2 v1
            web slot 1 waits until db has started
        "#]],
    );
}
