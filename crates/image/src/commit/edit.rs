//! The configuration of the image below becomes the new one's. What gantry knows nothing of stays as it is.

use std::time::{Duration, SystemTime};

use model::Digest;
use serde_json::{Map, Value, json};

use super::Edits;
use super::change::InvalidChange;

/// `layers` is how many the image below has.
pub(super) fn edit(
    config: &mut Map<String, Value>,
    diff_id: Digest,
    layers: usize,
    edits: &Edits,
) -> Result<(), InvalidChange> {
    let Edits { created, author, message, changes } = edits;
    let created = rfc3339(*created);
    config.insert("created".to_owned(), json!(created));
    if let Some(author) = author {
        config.insert("author".to_owned(), json!(author));
    }
    // Where there is no such list, the configuration is refused when it is read.
    if let Some(ids) = config.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids")?.as_array_mut())
    {
        ids.push(json!(diff_id.to_string()));
    }
    let mut entry = json!({ "created": created, "created_by": "gantry commit" });
    for (name, value) in [("author", author), ("comment", message)] {
        if let Some(value) = value {
            entry[name] = json!(value);
        }
    }
    write_history(config, layers, entry);
    if !changes.is_empty() {
        let run = config.entry("config").or_insert(Value::Null);
        let mut of_run = match run.take() {
            Value::Object(of_run) => of_run,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Map::new()
            }
        };
        let mut has_command = false;
        for change in changes {
            change.apply(&mut of_run, &mut has_command)?;
        }
        config.insert("config".to_owned(), Value::Object(of_run));
    }
    Ok(())
}

/// Programs take the history for a list of what each layer is. So where the image below says less, nothing is said of those.
fn write_history(config: &mut Map<String, Value>, layers: usize, entry: Value) {
    let mut history = match config.remove("history") {
        Some(Value::Array(history)) => history,
        Some(_) | None => Vec::new(),
    };
    let has_layer = |entry: &&Value| entry["empty_layer"] != Value::Bool(true);
    let known = history.iter().filter(has_layer).count();
    history.extend((known..layers).map(|_| json!({})));
    history.push(entry);
    config.insert("history".to_owned(), Value::Array(history));
}

/// To the second, in UTC.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, second) = (since / 86_400, since % 86_400);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// The date so many days after 1970-01-01, in the Gregorian calendar. Years are counted from March, so that a leap day is the last
/// of one; 400 years have 146,097 days.
fn date(days: u64) -> (u64, u64, u64) {
    /// From 0000-03-01 to 1970-01-01.
    const TO_EPOCH: u64 = 719_468;
    let days = days + TO_EPOCH;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Five months from March on have 153 days, and so have the next five.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * era + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::commit::Change;

    #[test]
    fn a_date_is_that_of_the_calendar() {
        let at = |seconds| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_772_366_400, "2026-03-01T12:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(at(seconds), text);
        }
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH - Duration::from_secs(5)), "1970-01-01T00:00:00Z");
    }

    fn edited(config: Value, edits: &Edits) -> String {
        let Value::Object(mut config) = config else { panic!("it is an object") };
        edit(&mut config, Digest([7; 32]), 2, edits).unwrap();
        config.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
    }

    fn edits(changes: &[&str]) -> Edits {
        Edits {
            created: SystemTime::UNIX_EPOCH,
            author: Some("ops".to_owned()),
            message: Some("before the upgrade".to_owned()),
            changes: changes.iter().map(|change| Change::parse(change).unwrap()).collect(),
        }
    }

    #[test]
    fn a_configuration_gets_what_is_new_and_keeps_what_nobody_knows() {
        let config = json!({
            "architecture": "amd64", "os": "linux", "docker_version": "1", "config": null,
            "rootfs": { "type": "layers", "diff_ids": ["a", "b"] },
            "history": [{ "created_by": "ADD" }, { "created_by": "ENV", "empty_layer": true }],
        });
        expect![[r#"
            architecture: "amd64"
            author: "ops"
            config: {"User":"app"}
            created: "1970-01-01T00:00:00Z"
            docker_version: "1"
            history: [{"created_by":"ADD"},{"created_by":"ENV","empty_layer":true},{},{"author":"ops","comment":"before the upgrade","created":"1970-01-01T00:00:00Z","created_by":"gantry commit"}]
            os: "linux"
            rootfs: {"diff_ids":["a","b","sha256:0707070707070707070707070707070707070707070707070707070707070707"],"type":"layers"}
        "#]]
        .assert_eq(&edited(config, &edits(&["USER app"])));
    }

    #[test]
    fn without_a_change_what_the_image_says_of_running_it_is_not_touched() {
        let config = json!({ "config": { "Env": ["A=1"] }, "rootfs": { "diff_ids": [] } });
        let text = edited(config, &Edits { author: None, message: None, ..edits(&[]) });
        expect![[r#"
            config: {"Env":["A=1"]}
            created: "1970-01-01T00:00:00Z"
            history: [{},{},{"created":"1970-01-01T00:00:00Z","created_by":"gantry commit"}]
            rootfs: {"diff_ids":["sha256:0707070707070707070707070707070707070707070707070707070707070707"]}
        "#]]
        .assert_eq(&text);
    }
}
