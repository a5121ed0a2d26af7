use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;
use crate::launch::{LogPolicy, Options, Output, Server, Syslog};

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000 + seconds, 5)
}

fn pieces(reads: &[&[u8]]) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let mut splitter = Splitter::default();
    let mut emit =
        |text: &[u8], partial: bool| found.push((String::from_utf8_lossy(text).into_owned(), partial));
    for bytes in reads {
        splitter.feed(bytes, &mut emit);
    }
    splitter.finish(&mut emit);
    found
}

/// Writes one line each, a second apart, in batches of one.
fn write(dir: &Path, policy: LogPolicy, lines: std::ops::Range<u64>) {
    let mut writer = Writer::create(dir, policy).unwrap();
    for number in lines {
        writer.push(at(number), Stream::Stdout, format!("line {number}").as_bytes(), false);
        writer.flush(at(number));
    }
}

fn texts(reader: &mut Reader) -> Vec<String> {
    reader.map(|line| String::from_utf8(line.unwrap().text).unwrap()).collect()
}

fn numbered(lines: std::ops::Range<u64>) -> Vec<String> {
    lines.map(|number| format!("line {number}")).collect()
}

/// Room for four records.
const SMALL: LogPolicy = LogPolicy { max_bytes: 200, files: 3 };

#[test]
fn lines_are_cut_wherever_reads_end() {
    let whole = |text: &str| (text.to_owned(), false);
    assert_eq!(pieces(&[b"one\ntwo\n"]), [whole("one"), whole("two")]);
    assert_eq!(pieces(&[b"o", b"ne", b"\n\ntw", b"o"]), [whole("one"), whole(""), whole("two")]);
    assert!(pieces(&[]).is_empty());
}

#[test]
fn a_line_without_end_is_cut_into_pieces() {
    let long = vec![b'x'; LONGEST_LINE * 2 + 3];
    let sizes = |reads: &[&[u8]]| {
        pieces(reads).iter().map(|(text, partial)| (text.len(), *partial)).collect::<Vec<_>>()
    };
    let expected = [(LONGEST_LINE, true), (LONGEST_LINE, true), (3, false)];
    assert_eq!(sizes(&[&long]), expected);
    assert_eq!(sizes(&long.chunks(1000).collect::<Vec<_>>()), expected);
}

#[test]
fn a_record_reads_back_whatever_bytes_it_has() {
    let line =
        Line { at: at(0), stream: Stream::Stderr, text: b"\xff a  b\r\x1b[0m ".to_vec(), partial: true };
    let mut record = Vec::new();
    write_record(&mut record, line.at, line.stream, line.partial, &line.text);
    assert!(
        record.starts_with(b"2023-11-14T22:13:20.000000005Z stderr P \xff a"),
        "{}",
        record.escape_ascii()
    );
    assert_eq!(Line::parse(record.strip_suffix(b"\n").unwrap()), Some(line));
    for bad in ["", "2023-11-14T22:13:20Z", "now stdout F x", "2023-11-14T22:13:20Z stdin F x"] {
        assert_eq!(Line::parse(bad.as_bytes()), None, "{bad:?}");
    }
}

#[test]
fn the_log_is_rotated_and_keeps_its_number_of_files() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), SMALL, 0..30);
    let sizes: Vec<u64> =
        (0..5).map_while(|age| std::fs::metadata(file(dir.path(), age)).ok()).map(|m| m.len()).collect();
    assert_eq!(sizes.len(), 3);
    assert!(sizes.iter().all(|size| *size <= SMALL.max_bytes), "{sizes:?}");
    let kept = texts(&mut Reader::open(dir.path(), None, None).unwrap());
    assert_eq!(kept, numbered(30 - kept.len() as u64..30), "the newest are kept, in order");
    assert!(kept.len() > 8);
}

#[test]
fn one_file_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), LogPolicy { files: 0, ..SMALL }, 0..9);
    let kept = texts(&mut Reader::open(dir.path(), None, None).unwrap());
    assert_eq!(kept.last(), Some(&"line 8".to_owned()));
    assert!(!file(dir.path(), 1).exists());
}

#[test]
fn the_last_lines_are_found_across_files() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), SMALL, 0..10);
    for tail in 0..=7 {
        let mut reader = Reader::open(dir.path(), None, Some(tail)).unwrap();
        assert_eq!(texts(&mut reader), numbered(10 - tail as u64..10));
    }
    assert_eq!(texts(&mut Reader::open(dir.path(), None, Some(1000)).unwrap()), numbered(0..10));
    assert_eq!(texts(&mut Reader::open(dir.path(), Some(at(8)), None).unwrap()), numbered(8..10));
}

#[test]
fn a_follower_sees_every_line_across_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let mut reader = Reader::open(dir.path(), None, None).unwrap();
    assert_eq!(texts(&mut reader), numbered(0..0), "there is no log yet");
    let mut seen = Vec::new();
    for first in (0..40).step_by(4) {
        write(dir.path(), SMALL, first..first + 4);
        seen.extend(texts(&mut reader));
    }
    assert_eq!(seen, numbered(0..40));
}

#[test]
fn a_record_that_is_half_written_is_waited_for() {
    use std::io::Write as _;
    let dir = tempfile::tempdir().unwrap();
    let mut log = std::fs::File::create(file(dir.path(), 0)).unwrap();
    let mut reader = Reader::open(dir.path(), None, None).unwrap();
    log.write_all(b"2023-11-14T22:13:20Z stdout F ha").unwrap();
    assert_eq!(texts(&mut reader), Vec::<String>::new());
    log.write_all(b"lf\n").unwrap();
    assert_eq!(texts(&mut reader), ["half"]);
}

#[test]
fn what_the_disk_did_not_take_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), LogPolicy { max_bytes: 1, files: 2 }).unwrap();
    let mut print = |text: &[u8]| {
        writer.push(at(0), Stream::Stdout, text, false);
        writer.flush(at(0));
    };
    print(b"kept");
    // A directory in the way of the rotation.
    std::fs::create_dir_all(file(dir.path(), 1).join("x")).unwrap();
    print(b"lost");
    std::fs::remove_dir_all(file(dir.path(), 1)).unwrap();
    print(b"kept again");
    let found = texts(&mut Reader::open(dir.path(), None, None).unwrap());
    let size = "2023-11-14T22:13:20.000000005Z stdout F lost\n".len();
    let notice = format!("gantry: {size} bytes of log were lost: the disk did not take them");
    assert_eq!(found, ["kept".to_owned(), notice, "kept again".to_owned()]);
}

#[test]
fn no_two_records_have_the_same_time_and_a_clock_that_was_set_back_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), LogPolicy::default()).unwrap();
    for (seconds, text) in [(100, "a"), (100, "b"), (100, "c"), (101, "d"), (40, "e"), (40, "f")] {
        writer.push(at(seconds), Stream::Stdout, text.as_bytes(), false);
    }
    writer.flush(at(101));
    let lines: Vec<Line> = Reader::open(dir.path(), None, None).unwrap().map(Result::unwrap).collect();
    let later = |seconds, nanos| at(seconds) + Duration::from_nanos(nanos);
    let times: Vec<SystemTime> = lines.iter().map(|line| line.at).collect();
    assert_eq!(times, [at(100), later(100, 1), later(100, 2), at(101), at(40), later(40, 1)]);
    let rest = texts(&mut Reader::open(dir.path(), Some(later(100, 1)), None).unwrap());
    assert_eq!(rest, ["b", "c", "d"], "what was read up to `a` goes on with `b`");
}

#[test]
fn the_pieces_of_a_long_line_count_as_one_of_the_last_lines() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), LogPolicy::default()).unwrap();
    let records = [("a", false), ("b1", true), ("b2", true), ("b3", false), ("c", false), ("d1", true)];
    for (number, (text, partial)) in (0..).zip(records) {
        writer.push(at(number), Stream::Stdout, text.as_bytes(), partial);
    }
    writer.flush(at(9));
    let last = |tail| texts(&mut Reader::open(dir.path(), None, Some(tail)).unwrap()).join(" ");
    assert_eq!(last(1), "c d1", "a line that is not ended yet comes with the last that is");
    assert_eq!(last(2), "b1 b2 b3 c d1");
    assert_eq!(last(3), "a b1 b2 b3 c d1");
    assert_eq!(last(9), "a b1 b2 b3 c d1");
}

#[test]
fn the_last_lines_are_found_where_blocks_meet() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), LogPolicy::default()).unwrap();
    // Records of every length around the size of a block, so that heads lie across its edges.
    let text = |number: u64| "x".repeat(usize::try_from(number * 37 % 1500).unwrap());
    for number in 0..400 {
        writer.push(at(number), Stream::Stderr, text(number).as_bytes(), false);
    }
    writer.flush(at(400));
    for tail in [1, 2, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 200, 399, 400, 401] {
        for until in [None, Some(at(360))] {
            let wanted = Wanted { since: None, until, tail: Some(tail) };
            let end = if until.is_some() { 361 } else { 400 };
            let begin = end - u64::try_from(tail).unwrap().min(end);
            let expected: Vec<String> = (begin..end).map(text).collect();
            let found = texts(&mut Reader::of(dir.path(), wanted).unwrap());
            assert!(found == expected, "tail {tail} until {until:?} has {} lines", found.len());
        }
    }
}

#[test]
fn nothing_is_later_than_until() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), SMALL, 0..10);
    let read = |since: Option<u64>, until, tail| {
        let wanted = Wanted { since: since.map(at), until: Some(at(until)), tail };
        texts(&mut Reader::of(dir.path(), wanted).unwrap())
    };
    assert_eq!(read(None, 6, None), numbered(0..7));
    assert_eq!(read(Some(3), 6, None), numbered(3..7));
    assert_eq!(read(None, 6, Some(2)), numbered(5..7), "the last of those, in an older file");
    assert_eq!(read(Some(6), 6, Some(2)), numbered(6..7));
    assert_eq!(read(None, 99, Some(2)), numbered(8..10));
}

#[test]
fn what_is_written_after_until_ends_the_log_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = Wanted { until: Some(at(5)), ..Wanted::default() };
    let mut reader = Reader::of(dir.path(), wanted).unwrap();
    write(dir.path(), LogPolicy::default(), 0..3);
    assert_eq!(texts(&mut reader), numbered(0..3));
    write(dir.path(), LogPolicy::default(), 5..8);
    assert_eq!(texts(&mut reader), numbered(5..6));
    write(dir.path(), LogPolicy::default(), 4..6);
    assert_eq!(texts(&mut reader), numbered(0..0));
}

#[test]
fn the_last_lines_reach_back_over_several_logs() {
    let dirs: Vec<tempfile::TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    write(dirs[0].path(), SMALL, 0..10);
    write(dirs[1].path(), SMALL, 10..13);
    // The latest has not written anything yet.
    let all = |tail: Option<usize>| {
        let mut readers = Reader::of_all(&dirs, Wanted { tail, ..Wanted::default() }).unwrap();
        let lines: Vec<String> = readers.iter_mut().flat_map(texts).collect();
        (readers.len(), lines)
    };
    assert_eq!(all(None), (3, numbered(0..13)));
    assert_eq!(all(Some(5)), (3, numbered(8..13)));
    assert_eq!(all(Some(3)), (2, numbered(10..13)), "the oldest is not opened");
    assert_eq!(all(Some(0)), (1, numbered(0..0)), "the latest may go on");
    assert_eq!(all(Some(100)), (3, numbered(0..13)));
}

#[test]
fn the_last_lines_are_followed_across_rotations() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), SMALL, 0..10);
    let mut reader = Reader::open(dir.path(), None, Some(3)).unwrap();
    // Rotated twice before anything is read: the reader holds the file in which it begins.
    write(dir.path(), SMALL, 10..17);
    assert_eq!(texts(&mut reader), numbered(7..17));
}

#[test]
fn output_that_is_discarded_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { output: Output::Discard, ..Options::default() };
    let mut writer = Writer::begin(dir.path(), SMALL, &options).unwrap();
    writer.push(at(0), Stream::Stdout, b"unheard", false);
    writer.flush(at(0));
    writer.finish(at(0));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(texts(&mut Reader::open(dir.path(), None, None).unwrap()), numbered(0..0));
}

#[test]
fn what_a_second_place_did_not_take_is_told_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let syslog = Syslog {
        server: Server::Unix(dir.path().join("nobody")),
        facility: 3,
        tag: "web".to_owned(),
        hostname: "n1".to_owned(),
    };
    let options = Options { output: Output::Syslog(syslog), ..Options::default() };
    let mut writer = Writer::begin(dir.path(), LogPolicy::default(), &options).unwrap();
    writer.push(at(0), Stream::Stdout, b"kept here", false);
    writer.flush(at(0));
    assert!(writer.deadline().is_some() && writer.interest().is_none());
    writer.finish(at(1));
    let found = texts(&mut Reader::open(dir.path(), None, None).unwrap());
    assert_eq!(found, ["kept here", "gantry: 1 line did not get to the syslog server"]);
}
