//! Services that run to their end.

use expect_test::{Expect, expect};

use crate::fixture::{World, check_plan};

/// The runs of `job` and its tasks, once all is done that can be.
#[track_caller]
fn check(fixture: &str, expect: Expect) {
    let mut world = World::of(fixture);
    world.settle();
    expect.assert_eq(&format!("{}{}", world.runs("job"), world.tasks()));
}

const TWO: &str = "nodes n1 n2\n service hello/job x2 job\n deploy\n settle\n";

#[test]
fn a_job_is_begun_when_it_is_deployed() {
    check_plan(
        "nodes n1 n2\n service hello/job x2 job\n deploy",
        expect![[r#"
        create job.1#1 v1 for run 1
        create job.2#2 v1 for run 1
    "#]],
    );
}

#[test]
fn a_run_is_over_when_every_slot_has_succeeded() {
    check_plan(
        &format!("{TWO} report job.1 completed"),
        expect![[r#"
        conclude job.1#1 ended
    "#]],
    );
    check_plan(
        &format!("{TWO} report job.1 completed\n report job.2 completed"),
        expect![[r#"
        conclude job.1#1 ended
        conclude job.2#2 ended
        run 1 of job succeeded
    "#]],
    );
    check(
        &format!("{TWO} report job.1 completed\n report job.2 completed"),
        expect![[r#"
        run 1 of v1 for deploy: succeeded, 2 done
        job.1#1 v1 on n1: to be running, is exited
        job.2#2 v1 on n2: to be running, is exited
    "#]],
    );
}

#[test]
fn an_unchanged_job_is_not_done_again() {
    check(
        &format!("{TWO} report job.1 completed\n report job.2 completed\n settle\n deploy"),
        expect![[r#"
        run 1 of v1 for deploy: succeeded, 2 done
        job.1#1 v1 on n1: to be running, is exited
        job.2#2 v1 on n2: to be running, is exited
    "#]],
    );
}

#[test]
fn a_changed_job_is_done_anew_and_what_went_on_is_stopped() {
    check(
        &format!("{TWO} report job.1 completed\n service hello/job x2 job command=two\n deploy"),
        expect![[r#"
            run 1 of v1 for deploy: stopped: run 2 took its place, 1 done
            run 2 of v2 for deploy: goes on
            job.1#1 v1 on n1: to be running, is exited
            job.1#3 v2 on n1: to be running, is running
            job.2#2 v1 on n2: to be stopped, is exited
            job.2#4 v2 on n2: to be running, is running
        "#]],
    );
}

#[test]
fn what_takes_no_other_container_does_nothing_again() {
    check(
        &format!("{TWO} service hello/job x2 job name-label=blue\n deploy"),
        expect![[r#"
        run 1 of v2 for deploy: goes on
        job.1#1 v2 on n1: to be running, is running
        job.2#2 v2 on n2: to be running, is running
    "#]],
    );
    let over = format!("{TWO} report job.1 completed\n report job.2 completed\n settle\n");
    check(
        &format!("{over} service hello/job x2 job name-label=blue\n deploy"),
        expect![[r#"
        run 1 of v1 for deploy: succeeded, 2 done
        job.1#1 v1 on n1: to be running, is exited
        job.2#2 v1 on n2: to be running, is exited
    "#]],
    );
}

#[test]
fn so_many_slots_are_tried_at_once() {
    check_plan(
        "nodes n1\n service hello/job x4 job at-once=2\n deploy",
        expect![[r#"
        create job.1#1 v1 for run 1
        create job.2#2 v1 for run 1
        job slot 3 waits until one of the others is done
        job slot 4 waits until one of the others is done
    "#]],
    );
    check_plan(
        "nodes n1\n service hello/job x4 job at-once=2\n deploy\n settle\n report job.2 completed",
        expect![[r#"
            conclude job.2#2 ended
            create job.3#3 v1 for run 1
            job slot 4 waits until one of the others is done
        "#]],
    );
}

#[test]
fn what_fails_is_tried_elsewhere_after_a_while_and_not_for_ever() {
    let once = format!("{TWO} report job.1 failing");
    check_plan(
        &once,
        expect![[r#"
        conclude job.1#1 ended
        job slot 1 keeps failing and waits before it is tried again
        job wakes in 1s
    "#]],
    );
    check_plan(
        &format!("{once}\n tick 1s"),
        expect![[r#"
        conclude job.1#1 ended
        create job.1#3 v1 for run 1 avoid n1
    "#]],
    );
    let thrice = format!(
        "{once}\n settle\n tick 30s\n settle\n report job.1 failing\n settle\n tick 30s\n settle\n report job.1 failing"
    );
    check(
        &thrice,
        expect![[r#"
        run 1 of v1 for deploy: failed: slot 1: exit code 1, 0 done
        job.1#1 v1 on n1: to be running, is failed
        job.1#3 v1 on n2: to be running, is failed
        job.1#4 v1 on n1: to be running, is failed
        job.2#2 v1 on n2: to be stopped, is exited
    "#]],
    );
}

#[test]
fn a_slot_that_gives_up_fails_the_run_and_the_others_stop() {
    check(
        &format!("{TWO} report job.2 gaveup"),
        expect![[r#"
        run 1 of v1 for deploy: failed: slot 2: exit code 1, 0 done
        job.1#1 v1 on n1: to be stopped, is exited
        job.2#2 v1 on n2: to be running, is failed
    "#]],
    );
}

#[test]
fn what_ends_badly_and_is_not_restarted_has_failed() {
    check(
        &format!("{TWO} report job.2 quit"),
        expect![[r#"
        run 1 of v1 for deploy: failed: slot 2: exit code 1, 0 done
        job.1#1 v1 on n1: to be stopped, is exited
        job.2#2 v1 on n2: to be running, is exited
    "#]],
    );
}

#[test]
fn a_run_that_takes_too_long_has_failed() {
    let slow = "nodes n1\n service hello/job x1 job time=60s\n deploy\n settle";
    check_plan(
        slow,
        expect![[r#"
        job wakes in 60s
    "#]],
    );
    check(
        &format!("{slow}\n tick 60s"),
        expect![[r#"
        run 1 of v1 for deploy: failed: it was not done within its deadline of 60 s, 0 done
        job.1#1 v1 on n1: to be stopped, is exited
    "#]],
    );
}

#[test]
fn what_was_lost_with_its_node_is_done_again_and_counts_once() {
    let lost = format!("{TWO} down n1\n settle");
    check(
        &lost,
        expect![[r#"
        run 1 of v1 for deploy: goes on
        job.1#1 v1 on n1: to be running, is lost
        job.1#3 v1 on n2: to be running, is running
        job.2#2 v1 on n2: to be running, is running
    "#]],
    );
    check(
        &format!(
            "{lost}\n report job.1#3 completed\n up n1\n report job.1#1 completed\n report job.2 completed"
        ),
        expect![[r#"
            run 1 of v1 for deploy: succeeded, 2 done
            job.1#1 v1 on n1: to be running, is exited
            job.1#3 v1 on n2: to be running, is exited
            job.2#2 v1 on n2: to be running, is exited
        "#]],
    );
}

#[test]
fn a_job_is_done_again_when_somebody_asks_and_is_ended_by_hand() {
    let again = format!("{TWO} report job.1 completed\n report job.2 completed\n settle\n run job");
    check(
        &again,
        expect![[r#"
        run 1 of v1 for deploy: succeeded, 2 done
        run 2 of v1 for asked: goes on
        job.1#1 v1 on n1: to be running, is exited
        job.1#3 v1 on n1: to be running, is running
        job.2#2 v1 on n2: to be running, is exited
        job.2#4 v1 on n2: to be running, is running
    "#]],
    );
    check(
        &format!("{again}\n settle\n end job"),
        expect![[r#"
        run 1 of v1 for deploy: succeeded, 2 done
        run 2 of v1 for asked: stopped: by hand, 0 done
        job.1#1 v1 on n1: to be running, is exited
        job.1#3 v1 on n1: to be stopped, is exited
        job.2#2 v1 on n2: to be running, is exited
        job.2#4 v1 on n2: to be stopped, is exited
    "#]],
    );
}

#[test]
fn so_many_runs_are_kept_and_their_tasks_with_them() {
    let once = "settle\n report job.1 completed\n settle\n run job\n";
    check(
        &format!("nodes n1\n service hello/job x1 job history=2\n deploy\n {}", once.repeat(4)),
        expect![[r#"
            run 3 of v1 for asked: succeeded, 1 done
            run 4 of v1 for asked: succeeded, 1 done
            run 5 of v1 for asked: goes on
            job.1#3 v1 on n1: to be running, is exited
            job.1#4 v1 on n1: to be running, is exited
            job.1#5 v1 on n1: to be running, is running
        "#]],
    );
}

#[test]
fn a_global_job_is_done_once_on_every_node() {
    let begun = "nodes n1 n2\n service hello/job global job\n deploy\n settle\n report job.1 completed";
    check(
        begun,
        expect![[r#"
        run 1 of v1 for deploy: goes on
        job.1#1 v1 on n1: to be running, is exited
        job.2#2 v1 on n2: to be running, is running
    "#]],
    );
    // A node that comes before the end takes part, and one that comes after does not.
    check(
        &format!("{begun}\n nodes n3"),
        expect![[r#"
        run 1 of v1 for deploy: goes on
        job.1#1 v1 on n1: to be running, is exited
        job.2#2 v1 on n2: to be running, is running
        job.3#3 v1 on n3: to be running, is running
    "#]],
    );
    check(
        &format!("{begun}\n report job.2 completed\n settle\n nodes n3"),
        expect![[r#"
        run 1 of v1 for deploy: succeeded, 2 done
        job.1#1 v1 on n1: to be running, is exited
        job.2#2 v1 on n2: to be running, is exited
    "#]],
    );
}

#[test]
fn slots_that_are_not_wanted_any_more_do_not_hold_a_run_back() {
    check(
        &format!("{TWO} report job.1 completed\n scale job 1"),
        expect![[r#"
        run 1 of v1 for deploy: succeeded, 1 done
        job.1#1 v1 on n1: to be running, is exited
    "#]],
    );
}

#[test]
fn a_job_that_is_removed_leaves_nothing() {
    check_plan(
        &format!("{TWO} report job.1 completed\n settle\n rm hello"),
        expect![[r#"
        remove job.1#1
        remove job.2#2
    "#]],
    );
}

#[test]
fn a_service_that_becomes_a_job_is_another_service_of_that_name() {
    let changed = "nodes n1\n service hello/job x1\n deploy\n settle\n service hello/job x1 job\n deploy";
    check(
        changed,
        expect![[r#"
        run 1 of v1 for deploy: goes on
        job.1#1 v1 on n1: to be running, is running
    "#]],
    );
}

/// The fixtures' clock begins at 00:16:40; this is done at each full hour.
const HOURLY: &str = "nodes n1\n service hello/job x1 job cron=0_*_*_*_*";

#[test]
fn a_job_with_times_of_its_own_is_done_at_them_and_not_when_it_is_deployed() {
    check_plan(
        &format!("{HOURLY}\n deploy"),
        expect![[r#"
        job wakes in 2600s
    "#]],
    );
    check_plan(
        &format!("{HOURLY}\n deploy\n settle\n tick 2600s"),
        expect![[r#"
        job was due 0ns ago
        then
        create job.1#1 v1 for run 1
        job wakes in 3600s
    "#]],
    );
    let done = format!("{HOURLY}\n deploy\n settle\n tick 2600s\n settle\n report job.1 completed\n settle");
    check(
        &done,
        expect![[r#"
        run 1 of v1 for schedule: succeeded, 1 done
        job.1#1 v1 on n1: to be running, is exited
    "#]],
    );
    check_plan(
        &done,
        expect![[r#"
        job wakes in 3600s
    "#]],
    );
    check(
        &format!("{done}\n tick 1h"),
        expect![[r#"
        run 1 of v1 for schedule: succeeded, 1 done
        run 2 of v1 for schedule: goes on
        job.1#1 v1 on n1: to be running, is exited
        job.1#2 v1 on n1: to be running, is running
    "#]],
    );
}

#[test]
fn a_time_at_which_the_run_before_goes_on_is_skipped_or_shared_or_taken() {
    let busy =
        |overlap: &str| format!("{HOURLY} {overlap}\n deploy\n settle\n tick 2600s\n settle\n tick 1h");
    check(
        &busy(""),
        expect![[r#"
        run 1 of v1 for schedule: goes on
        a time was skipped: the run before it still went on
        job.1#1 v1 on n1: to be running, is running
    "#]],
    );
    check(
        &busy("overlap=allow"),
        expect![[r#"
        run 1 of v1 for schedule: goes on
        run 2 of v1 for schedule: goes on
        job.1#1 v1 on n1: to be running, is running
        job.1#2 v1 on n1: to be running, is running
    "#]],
    );
    check(
        &busy("overlap=replace"),
        expect![[r#"
        run 1 of v1 for schedule: stopped: run 2 took its place, 0 done
        run 2 of v1 for schedule: goes on
        job.1#1 v1 on n1: to be stopped, is exited
        job.1#2 v1 on n1: to be running, is running
    "#]],
    );
}

#[test]
fn runs_that_overlap_are_not_without_number() {
    let mut world = World::of(&format!("{HOURLY} overlap=allow\n deploy\n settle\n tick 2600s"));
    for _ in 0..110 {
        world.run("plan\n tick 1h");
    }
    let job = world.state.service(world.service("job")).and_then(|service| service.job.as_ref()).unwrap();
    assert_eq!((job.active().count(), job.last), (100, 100));
    assert!(job.skipped.is_some());
}

#[test]
fn of_times_that_were_missed_the_latest_is_made_up_for_or_none() {
    // Nobody planned for five hours and a half.
    check(
        &format!("{HOURLY}\n deploy\n settle\n tick 20000s"),
        expect![[r#"
        run 1 of v1 for schedule: goes on
        job.1#1 v1 on n1: to be running, is running
    "#]],
    );
    check(
        &format!("{HOURLY} missed=skip\n deploy\n settle\n tick 20000s"),
        expect![[r#"
            a time was skipped: no manager led at the time
            nothing
        "#]],
    );
    // The time of a leader's change is not missed.
    check(
        &format!("{HOURLY} missed=skip\n deploy\n settle\n tick 2640s"),
        expect![[r#"
        run 1 of v1 for schedule: goes on
        job.1#1 v1 on n1: to be running, is running
    "#]],
    );
}

#[test]
fn times_before_a_schedule_was_declared_are_not_its_own() {
    let changed = "nodes n1\n service hello/job x1 job cron=0_12_*_*_*\n deploy\n settle\n tick 2700s
         service hello/job x1 job cron=0_*_*_*_*\n deploy\n settle";
    check_plan(
        changed,
        expect![[r#"
        job wakes in 3500s
    "#]],
    );
}

#[test]
fn a_changed_job_with_times_of_its_own_is_done_at_the_next_of_them() {
    let changed = format!(
        "{HOURLY}\n deploy\n settle\n tick 2600s\n settle\n service hello/job x1 job cron=0_*_*_*_* command=two\n deploy"
    );
    check(
        &changed,
        expect![[r#"
        run 1 of v1 for schedule: goes on
        job.1#1 v1 on n1: to be running, is running
    "#]],
    );
    check(
        &format!("{changed}\n settle\n report job.1 completed\n settle\n tick 1h"),
        expect![[r#"
        run 1 of v1 for schedule: succeeded, 1 done
        run 2 of v2 for schedule: goes on
        job.1#1 v1 on n1: to be running, is exited
        job.1#2 v2 on n1: to be running, is running
    "#]],
    );
}

#[test]
fn a_job_with_times_of_its_own_is_done_in_between_when_somebody_asks() {
    check(
        &format!("{HOURLY}\n deploy\n settle\n run job"),
        expect![[r#"
        run 1 of v1 for asked: goes on
        job.1#1 v1 on n1: to be running, is running
    "#]],
    );
}
