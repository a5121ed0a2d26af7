use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;
use crate::launch::{LogPolicy, Output, Server, Syslog};

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
fn output_that_is_discarded_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::begin(dir.path(), SMALL, &Output::Discard).unwrap();
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
    let mut writer = Writer::begin(dir.path(), LogPolicy::default(), &Output::Syslog(syslog)).unwrap();
    writer.push(at(0), Stream::Stdout, b"kept here", false);
    writer.flush(at(0));
    assert!(writer.deadline().is_some() && writer.interest().is_none());
    writer.finish(at(1));
    let found = texts(&mut Reader::open(dir.path(), None, None).unwrap());
    assert_eq!(found, ["kept here", "gantry: 1 line did not get to the syslog server"]);
}
