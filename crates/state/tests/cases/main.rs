//! What commands do to the tables, case by case. The language is [`fixture`]'s.

#[expect(dead_code, reason = "some of it is for the other tests")]
#[path = "../../../controllers/tests/fixture/mod.rs"]
mod fixture;
mod history;
mod images;
mod rejections;
mod reports;
mod retention;
