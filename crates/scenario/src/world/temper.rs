//! What becomes of containers by themselves: each service has a temper of its own.

use std::time::Duration;

use model::Exit;

use crate::dice::Dice;
use crate::world::vigour::Vigour;

/// How a service's containers behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Temper {
    Steady,
    /// Ends now and then, one way or the other.
    Flaky,
    /// Ends soon after most starts.
    Broken,
    /// Sometimes does not start at all.
    Missing,
    /// Takes its time to stop.
    Stubborn,
    /// Falls ill now and then: it runs, and does not answer as it should.
    Sickly,
}

/// What becomes of one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Runs,
    Ends { after: Duration, exit: Exit },
    NeverStarts,
}

const OUT_OF_MEMORY: Exit = Exit::Signal { signal: 9, oom: true };
const CRASHED: Exit = Exit::Signal { signal: 11, oom: false };

impl Temper {
    pub(crate) fn draw(dice: &Dice) -> Self {
        let tempers = [
            Self::Steady,
            Self::Steady,
            Self::Steady,
            Self::Flaky,
            Self::Broken,
            Self::Missing,
            Self::Stubborn,
            Self::Sickly,
        ];
        dice.pick(&tempers)
    }

    pub(crate) fn fate(self, dice: &Dice) -> Fate {
        match self {
            Self::Steady | Self::Stubborn | Self::Sickly => Fate::Runs,
            Self::Flaky if dice.chance(40) => {
                let exit = dice.pick(&[Exit::Code(0), Exit::Code(1), OUT_OF_MEMORY, CRASHED]);
                Fate::Ends { after: dice.millis(100, 15_000), exit }
            }
            Self::Broken if dice.chance(70) => {
                Fate::Ends { after: dice.millis(0, 2_000), exit: dice.pick(&[Exit::Code(1), CRASHED]) }
            }
            Self::Missing if dice.chance(30) => Fate::NeverStarts,
            Self::Flaky | Self::Broken | Self::Missing => Fate::Runs,
        }
    }

    /// How long it takes from the stop signal to the end; longer than the grace period for some.
    pub(crate) fn farewell(self, dice: &Dice) -> Duration {
        match self {
            Self::Stubborn => dice.millis(1_000, 15_000),
            Self::Steady | Self::Flaky | Self::Broken | Self::Missing | Self::Sickly => dice.millis(2, 300),
        }
    }

    /// How one container answers when it is asked.
    pub(crate) fn vigour(self, dice: &Dice) -> Vigour {
        let wakes = dice.millis(0, 3_000);
        let spell =
            |percent| dice.chance(percent).then(|| (dice.millis(1_000, 20_000), dice.millis(500, 20_000)));
        match self {
            Self::Sickly => Vigour { wakes, ill: spell(70), busy: spell(70) },
            Self::Steady | Self::Flaky | Self::Broken | Self::Missing | Self::Stubborn => {
                Vigour { wakes, ill: None, busy: spell(20) }
            }
        }
    }
}
