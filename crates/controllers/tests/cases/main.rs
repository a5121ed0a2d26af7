//! What the planners do, case by case. The language is [`fixture`]'s.

mod copies;
#[expect(dead_code, reason = "some of it is for the other tests")]
#[path = "../fixture/mod.rs"]
mod fixture;
mod global;
mod jobs;
mod nodes;
mod one_off;
mod order;
mod removal;
mod rollouts;
mod slots;
mod versions;
