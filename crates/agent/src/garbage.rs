//! Which images a node lets go of: a decision about what is here, without a disk or a clock.

use std::time::Duration;

use model::{Bytes, Digest, Timestamp};

/// How long an image stays that nothing uses, where it can be had again. A day spans a night in which nothing is deployed,
/// and a service that is moved away and back.
const UNUSED: Duration = Duration::from_secs(24 * 60 * 60);

/// What came or was used so short a while ago is about to be used, whatever the disk looks like.
const FRESH: Duration = Duration::from_secs(10 * 60);

/// Below this share of the disk, in percent, room is made, until there is [`ENOUGH`]. Docker's users set the same by hand;
/// Kubernetes has 15 and 20 as well.
const SCARCE: u64 = 15;
const ENOUGH: u64 = 20;

/// A disk with so much room is not short of it, however large it is.
const PLENTY: Bytes = Bytes(10 << 30);

/// One image that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub digest: Digest,
    pub used: Timestamp,
    pub standing: Standing,
}

/// What an image is to this node and to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A task is made from it, or will be; it is being fetched, or read.
    Used,
    /// The cluster counts on this node's copy.
    Required,
    /// It could not be had again.
    OnlyHere,
    /// The cluster has said nothing of it: it has not heard of it yet, or has forgotten it. Time tells which.
    Unlisted,
    /// Another node or a registry has it.
    Spare,
    /// It came by half, and nobody is bringing the rest.
    Half,
}

/// The room on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub free: Bytes,
    pub total: Bytes,
}

impl Room {
    fn is_scarce(self) -> bool {
        self.share() < SCARCE && self.free < PLENTY
    }

    fn is_enough(self) -> bool {
        self.share() >= ENOUGH || self.free >= PLENTY
    }

    /// What is free of a hundred parts.
    fn share(self) -> u64 {
        let share = u128::from(self.free.0) * 100 / u128::from(self.total.0.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

/// Why an image goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Unused,
    /// There is no room.
    Room,
    /// The rest of it does not come.
    Half,
}

/// Whether room is being made: from when it is scarce until there is enough. What an image really takes is known when it is
/// gone, so this is carried from one answer to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Making(bool);

impl Making {
    /// The disk was found full: what was to come was larger than what there was.
    pub const ROOM: Self = Self(true);

    /// The next image to discard, if any: what has been unused for long first, then, where room is to be made, what was used
    /// longest ago. To be asked again when it is gone.
    pub fn next(&mut self, images: &[Held], room: Room, now: Timestamp) -> Option<(Digest, Why)> {
        self.0 = if self.0 { !room.is_enough() } else { room.is_scarce() };
        let why = |held: &Held| {
            let unused = now.since(held.used);
            match held.standing {
                Standing::Used | Standing::Required | Standing::OnlyHere => None,
                Standing::Unlisted | Standing::Spare if unused > UNUSED => Some(Why::Unused),
                Standing::Spare if self.0 && unused > FRESH => Some(Why::Room),
                // The wait is for whoever tries again after a while, or was moved away and comes back.
                Standing::Half if unused > FRESH => Some(Why::Half),
                Standing::Unlisted | Standing::Spare | Standing::Half => None,
            }
        };
        let may_go = images.iter().filter_map(|held| why(held).map(|why| (held.used, held.digest, why)));
        let (_, oldest, why) = may_go.min_by_key(|(used, digest, _)| (*used, *digest))?;
        Some((oldest, why))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);
    const GIB: u64 = 1 << 30;

    /// An image a line: its number, what it is, for how many minutes it has been unused, and how many GiB its going frees. Then
    /// the disk: free and total GiB.
    fn check(images: &str, free: u64, total: u64, expected: &Expect) {
        let mut held: Vec<(Held, u64)> = Vec::new();
        for line in images.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [number, standing, minutes, size] = words[..] else { panic!("`{line}` is no image") };
            let standing = match standing {
                "used" => Standing::Used,
                "required" => Standing::Required,
                "only-here" => Standing::OnlyHere,
                "unlisted" => Standing::Unlisted,
                "spare" => Standing::Spare,
                "half" => Standing::Half,
                other => panic!("`{other}` is no standing"),
            };
            let unused: u64 = minutes.parse().unwrap();
            let image = Held {
                digest: Digest([number.parse().unwrap(); 32]),
                used: Timestamp(NOW.0 - unused * 60_000),
                standing,
            };
            held.push((image, size.parse::<u64>().unwrap() * GIB));
        }
        let mut room = Room { free: Bytes(free * GIB), total: Bytes(total * GIB) };
        let (mut text, mut making) = (String::new(), Making::default());
        loop {
            let images: Vec<Held> = held.iter().map(|(image, _)| *image).collect();
            let Some((gone, why)) = making.next(&images, room, NOW) else { break };
            let at = images.iter().position(|image| image.digest == gone).unwrap();
            room.free.0 += held.remove(at).1;
            text += &format!("{} {why:?}\n", gone.0[0]);
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn what_is_unused_for_a_day_goes_and_nothing_else_does() {
        check(
            "1 spare 1441 1
             2 spare 1440 1
             3 used 9999 1
             4 required 9999 1
             5 only-here 9999 1
             6 spare 5000 1
             7 unlisted 2000 1",
            500,
            1000,
            &expect![[r#"
                6 Unused
                7 Unused
                1 Unused
            "#]],
        );
    }

    #[test]
    fn where_room_is_scarce_what_was_used_longest_ago_goes_until_there_is_enough() {
        check(
            "1 spare 60 1
             2 spare 120 1
             3 spare 180 1
             4 used 1200 5
             5 spare 240 1
             6 unlisted 1000 5",
            5,
            40,
            &expect![[r#"
                5 Room
                3 Room
                2 Room
            "#]],
        );
    }

    #[test]
    fn what_came_by_half_goes_once_nobody_has_brought_the_rest_for_a_while() {
        check(
            "1 half 10 1
             2 half 11 1
             3 used 12 1
             4 spare 13 1",
            500,
            1000,
            &expect![[r#"
                2 Half
            "#]],
        );
    }

    #[test]
    fn a_large_disk_has_room_whatever_share_that_is() {
        check("1 spare 60 1", 10, 1000, &expect![[""]]);
        check(
            "1 spare 60 1
             2 spare 61 1",
            9,
            1000,
            &expect![[r#"
                2 Room
            "#]],
        );
    }

    #[test]
    fn what_has_just_come_stays_also_on_a_full_disk() {
        check("1 spare 10 1\n 2 spare 0 1\n 3 required 900 1", 0, 40, &expect![[""]]);
    }

    #[test]
    fn a_disk_that_was_full_gets_room_though_its_numbers_look_well() {
        let spare = |number, minutes: u64| Held {
            digest: Digest([number; 32]),
            used: Timestamp(NOW.0 - minutes * 60_000),
            standing: Standing::Spare,
        };
        let images = [spare(1, 60), spare(2, 70)];
        let room = |free| Room { free: Bytes(free * GIB), total: Bytes(40 * GIB) };
        let mut making = Making::ROOM;
        assert_eq!(making.next(&images, room(7), NOW), Some((Digest([2; 32]), Why::Room)));
        assert_eq!(making.next(&images, room(8), NOW), None, "a fifth is enough");
        assert_eq!(making.next(&images, room(7), NOW), None, "and is not scarce again at once");
    }
}
