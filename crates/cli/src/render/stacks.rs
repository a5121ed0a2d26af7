//! `gantry stacks`.

use serde::Serialize;
use wire::proto::api;

use crate::render::table::table;
use crate::times;

#[derive(Debug, Serialize)]
pub(crate) struct Row<'a> {
    stack: &'a str,
    services: u32,
    desired: u32,
    running: u32,
    generation: u64,
    deployed: Option<String>,
    /// `active | removing`
    status: &'a str,
}

pub(crate) fn rows(stacks: &[api::Stack]) -> Vec<Row<'_>> {
    stacks.iter().map(row).collect()
}

fn row(stack: &api::Stack) -> Row<'_> {
    let api::Stack { name, services, desired, running, generation, deployed, status } = stack;
    Row {
        stack: name,
        services: *services,
        desired: *desired,
        running: *running,
        generation: *generation,
        deployed: times::rfc3339(*deployed),
        status,
    }
}

/// `now` is in milliseconds since the epoch.
pub(crate) fn stacks_table(stacks: &[api::Stack], wide: bool, now: u64) -> String {
    let mut header = vec!["STACK", "SERVICES", "RUNNING", "STATUS", "DEPLOYED"];
    if wide {
        header.push("GENERATION");
    }
    let rows: Vec<_> = stacks.iter().map(|stack| cells(stack, wide, now)).collect();
    table(&header, &rows)
}

fn cells(stack: &api::Stack, wide: bool, now: u64) -> Vec<String> {
    let mut cells = vec![
        stack.name.clone(),
        stack.services.to_string(),
        format!("{}/{}", stack.running, stack.desired),
        stack.status.clone(),
        times::ago(now, stack.deployed),
    ];
    if wide {
        cells.push(stack.generation.to_string());
    }
    cells
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::render::document;

    fn hello() -> api::Stack {
        api::Stack {
            name: "hello".to_owned(),
            services: 1,
            desired: 9,
            running: 7,
            generation: 42,
            deployed: 1_700_000_000_000,
            status: "active".to_owned(),
        }
    }

    #[test]
    fn a_stack_is_the_sum_of_its_services() {
        expect![[r#"
            STACK  SERVICES  RUNNING  STATUS  DEPLOYED  GENERATION
            hello  1         7/9      active  5s ago    42
        "#]]
        .assert_eq(&stacks_table(&[hello()], true, 1_700_000_005_000));
        expect![[r#"
            [
              {
                "stack": "hello",
                "services": 1,
                "desired": 9,
                "running": 7,
                "generation": 42,
                "deployed": "2023-11-14T22:13:20.000Z",
                "status": "active"
              }
            ]
        "#]]
        .assert_eq(&document::json(&rows(&[hello()])));
    }
}
