//! How much of what was written has been heard, where nobody tells it: by the time that such words take to say, or by
//! what the platform says was heard when it cut them short. Pure.

use std::time::{Duration, Instant};

use super::super::ClauseId;

/// How long a character takes to say.
const PER_CHAR: Duration = Duration::from_millis(70);
/// Before the first character of a clause that nothing is said before.
const BEFORE: Duration = Duration::from_millis(800);

/// How much of a clause was heard, characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) id: ClauseId,
    pub(super) heard: u32,
    pub(super) all: u32,
}

#[derive(Debug)]
struct Clause {
    id: ClauseId,
    text: String,
    from: Instant,
    until: Instant,
    /// It was told to be over.
    over: bool,
}

impl Clause {
    fn all(&self) -> u32 {
        u32::try_from(self.text.chars().count()).unwrap_or(u32::MAX)
    }

    fn share(&self, heard: u32) -> Share {
        let all = self.all();
        Share { id: self.id, heard: heard.min(all), all }
    }
}

/// The clauses of the present turn, and those before it that may still be heard.
#[derive(Debug, Default)]
pub(super) struct Guess {
    clauses: Vec<Clause>,
}

impl Guess {
    /// A clause goes out.
    pub(super) fn say(&mut self, now: Instant, id: ClauseId, text: &str) {
        // What an interruption is told of is one turn.
        self.clauses.retain(|clause| !clause.over || clause.id.generation == id.generation);
        let before = self.clauses.iter().map(|clause| clause.until).max().filter(|until| *until > now);
        let from = before.unwrap_or(now + BEFORE);
        let chars = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        let until = from + PER_CHAR.saturating_mul(chars);
        self.clauses.push(Clause { id, text: text.to_owned(), from, until, over: false });
    }

    /// When the next clause is over.
    pub(super) fn due(&self) -> Option<Instant> {
        self.clauses.iter().filter(|clause| !clause.over).map(|clause| clause.until).min()
    }

    /// The clauses that are over by now.
    pub(super) fn over(&mut self, now: Instant) -> Vec<Share> {
        let over = self.clauses.iter_mut().filter(|clause| !clause.over && clause.until <= now);
        over.map(settled).collect()
    }

    /// All were heard to their ends.
    pub(super) fn all(&mut self) -> Vec<Share> {
        self.clauses.iter_mut().filter(|clause| !clause.over).map(settled).collect()
    }

    /// What was heard by now, where nothing more is.
    pub(super) fn at(&mut self, now: Instant) -> Vec<Share> {
        let open = self.clauses.iter_mut().filter(|clause| !clause.over);
        let share = |clause: &mut Clause| {
            clause.over = true;
            let heard = now.saturating_duration_since(clause.from).as_millis() / PER_CHAR.as_millis();
            clause.share(u32::try_from(heard).unwrap_or(u32::MAX))
        };
        open.map(share).collect()
    }

    /// The platform says what was heard of the turn: how much that is of each clause that may still have been.
    pub(super) fn cut(&mut self, heard: &str) -> Vec<Share> {
        let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
        let first = self.first_of(heard);
        let mut left = letters(heard);
        let mut shares = Vec::new();
        for (at, clause) in self.clauses.iter_mut().enumerate() {
            let here = if at < first { 0 } else { left.min(letters(&clause.text)) };
            left -= here;
            if clause.over {
                continue;
            }
            clause.over = true;
            // Blanks were not counted, and do not end before the letter that was heard last.
            let end = clause.text.char_indices().filter(|(_, c)| !c.is_whitespace()).nth(here);
            let chars = match end {
                _ if here == 0 => 0,
                Some((at, _)) => clause.text[..at].trim_end().chars().count(),
                None => clause.text.chars().count(),
            };
            shares.push(clause.share(u32::try_from(chars).unwrap_or(u32::MAX)));
        }
        shares
    }

    /// The clause that what was heard begins with: platforms tell of a turn, or of what they have said last.
    fn first_of(&self, heard: &str) -> usize {
        let squeezed = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        let heard = squeezed(heard);
        let starts = (0..self.clauses.len()).find(|at| {
            let rest: String = self.clauses[*at..].iter().map(|clause| squeezed(&clause.text)).collect();
            rest.starts_with(&heard)
        });
        starts.unwrap_or(0)
    }
}

fn settled(clause: &mut Clause) -> Share {
    clause.over = true;
    clause.share(u32::MAX)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any start will do")]
mod tests {
    use super::*;

    fn id(index: u32) -> ClauseId {
        ClauseId { generation: 1, index }
    }

    fn share(index: u32, heard: u32, all: u32) -> Share {
        Share { id: id(index), heard, all }
    }

    #[test]
    fn words_are_heard_one_after_the_other() {
        let start = Instant::now();
        let mut guess = Guess::default();
        guess.say(start, id(0), "One.");
        guess.say(start, id(1), "Two three.");
        let first = start + BEFORE + PER_CHAR * 4;
        assert_eq!(guess.due(), Some(first));
        assert_eq!(guess.over(first - PER_CHAR), []);
        assert_eq!(guess.over(first), [share(0, 4, 4)]);
        assert_eq!(guess.at(first + PER_CHAR * 3), [share(1, 3, 10)]);
        assert_eq!(guess.all(), []);
        assert_eq!(guess.due(), None);
    }

    #[test]
    fn what_the_platform_says_counts() {
        for (heard, shares) in [
            ("", vec![share(0, 0, 4), share(1, 0, 10)]),
            ("On", vec![share(0, 2, 4), share(1, 0, 10)]),
            ("One. Two", vec![share(0, 4, 4), share(1, 3, 10)]),
            ("One.Two th", vec![share(0, 4, 4), share(1, 6, 10)]),
            ("One. Two three.", vec![share(0, 4, 4), share(1, 10, 10)]),
            ("Two", vec![share(0, 0, 4), share(1, 3, 10)]),
            ("Something else altogether, and longer", vec![share(0, 4, 4), share(1, 10, 10)]),
        ] {
            let start = Instant::now();
            let mut guess = Guess::default();
            guess.say(start, id(0), "One.");
            guess.say(start, id(1), "Two three.");
            assert_eq!(guess.cut(heard), shares, "{heard}");
        }
        // What was taken for heard already is not told again, and counts.
        let start = Instant::now();
        let mut guess = Guess::default();
        guess.say(start, id(0), "One.");
        guess.say(start, id(1), "Two three.");
        let first = guess.due().unwrap();
        assert_eq!(guess.over(first).len(), 1);
        assert_eq!(guess.cut("One. Two t"), [share(1, 5, 10)]);
    }
}
