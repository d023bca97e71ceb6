//! Text that is still being written, cut into clauses that can be spoken: the first is wanted as soon as it is whole,
//! and none is cut within a number or after an abbreviation. Pure. All clauses together are the text, to the last blank;
//! [`words`] is what there is to say of one.

/// From this many characters on a comma ends a clause, too.
const COMMA_AFTER: usize = 80;
/// No clause is longer than this many characters; it ends at a blank, or where it must.
const LONGEST: usize = 240;
/// What a point after it does not end.
const ABBREVIATIONS: &[&str] = &[
    "mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "no", "nr", "inc", "ltd", "co", "corp",
    "approx", "dept", "est", "e.g", "i.e", "a.m", "p.m", "u.s", "u.k", "z.b", "bzw", "ca", "usw",
];

/// Cuts text into clauses.
#[derive(Clone, Debug, Default)]
pub struct Clauses {
    waiting: String,
}

impl Clauses {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next text, cut anywhere; the clauses that are whole now.
    pub fn push(&mut self, text: &str) -> Vec<String> {
        self.waiting.push_str(text);
        let mut clauses = Vec::new();
        while let Some(end) = end_of_clause(&self.waiting) {
            // Blanks that are there already belong to the clause before them.
            let blanks = self.waiting[end..].len() - self.waiting[end..].trim_start().len();
            let rest = self.waiting.split_off(end + blanks);
            clauses.push(std::mem::replace(&mut self.waiting, rest));
        }
        clauses
    }

    /// What is left when nothing more comes.
    pub fn finish(&mut self) -> Option<String> {
        Some(std::mem::take(&mut self.waiting)).filter(|rest| !rest.is_empty())
    }

    /// Forgets what is not whole.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

/// A clause without the blanks around it; `None` where there is nothing to say.
pub fn words(clause: &str) -> Option<&str> {
    Some(clause.trim()).filter(|clause| clause.chars().any(char::is_alphanumeric))
}

/// Where the first clause ends, in bytes, if it is certain by now.
fn end_of_clause(text: &str) -> Option<usize> {
    let mut blank = None;
    let mut said = false;
    let mut length = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let after = at + c.len_utf8();
        let next = chars.peek().map(|(_, next)| *next);
        let end = match c {
            '\n' | '。' | '！' | '？' | '；' => Some(after),
            '.' | '!' | '?' | '…' | ';' | ':' => sentence_end(text, at, c),
            ',' | '，' | '、' if length >= COMMA_AFTER && next.is_some_and(char::is_whitespace) => {
                Some(after)
            }
            _ => None,
        };
        said |= c.is_alphanumeric();
        length += 1;
        if said && end.is_some() {
            return end;
        }
        if c.is_whitespace() && said {
            blank = Some(after);
        }
        if length >= LONGEST {
            return Some(blank.unwrap_or(after));
        }
    }
    None
}

/// Where a sentence ends that this mark ends: a blank follows (nothing yet means: who knows), perhaps after quotes or
/// brackets, which belong to it, and it is no abbreviation, no initial, no number of a list.
fn sentence_end(text: &str, at: usize, mark: char) -> Option<usize> {
    let closing = |c: char| matches!(c, '"' | '\'' | ')' | ']' | '”' | '’' | '»');
    let rest = text[at + mark.len_utf8()..].trim_start_matches(closing);
    let certain = rest.starts_with(char::is_whitespace) && !(mark == '.' && is_no_end(&text[..at]));
    certain.then(|| text.len() - rest.len())
}

/// Whether a point after this text ends nothing.
fn is_no_end(before: &str) -> bool {
    let word = before.rsplit(|c: char| c.is_whitespace() || "(\"'“‘[".contains(c)).next().unwrap_or_default();
    let word = word.to_lowercase();
    let initial = word.chars().count() == 1 && word.chars().all(char::is_alphabetic) && word != "i";
    // "1. First": at the beginning only, for "at 5." ends a sentence.
    let start = before.trim();
    let numbered = !start.is_empty() && start.bytes().all(|b| b.is_ascii_digit());
    initial || numbered || ABBREVIATIONS.contains(&word.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clauses of a text that comes in pieces of so many characters, as they are spoken.
    fn cut(text: &str, size: usize) -> Vec<String> {
        whole(text, size).iter().filter_map(|clause| words(clause)).map(str::to_owned).collect()
    }

    /// The same with all their blanks.
    fn whole(text: &str, size: usize) -> Vec<String> {
        let mut clauses = Clauses::new();
        let chars: Vec<char> = text.chars().collect();
        let mut out = Vec::new();
        for piece in chars.chunks(size) {
            out.extend(clauses.push(&piece.iter().collect::<String>()));
        }
        out.extend(clauses.finish());
        out
    }

    #[test]
    fn sentences_are_clauses_however_they_come() {
        for (text, expected) in [
            ("Yes. I can help! Can you? Good", vec!["Yes.", "I can help!", "Can you?", "Good"]),
            ("It costs $3.50, or 1.000.000. Fine.", vec!["It costs $3.50, or 1.000.000.", "Fine."]),
            ("Ask Dr. Smith at 5 p.m. today. Bye.", vec!["Ask Dr. Smith at 5 p.m. today.", "Bye."]),
            ("J. R. Smith is here. Ok", vec!["J. R. Smith is here.", "Ok"]),
            ("1. First. 2. Second.", vec!["1. First.", "2. Second."]),
            ("It is at 5. Come then.", vec!["It is at 5.", "Come then."]),
            ("He said \"go.\" Then he left.", vec!["He said \"go.\"", "Then he left."]),
            ("See example.com/a?b=c for it. Done", vec!["See example.com/a?b=c for it.", "Done"]),
            ("Wait... what?! Well", vec!["Wait...", "what?!", "Well"]),
            ("One line\n\nand another", vec!["One line", "and another"]),
            ("你好。再见！", vec!["你好。", "再见！"]),
            ("Grüße aus Köln! Ça va?", vec!["Grüße aus Köln!", "Ça va?"]),
            ("… ! ?", vec![]),
            ("", vec![]),
        ] {
            for size in [1, 2, 3, 7, 1000] {
                assert_eq!(cut(text, size), expected, "{text} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_clause_is_given_as_soon_as_it_is_certain() {
        let mut clauses = Clauses::new();
        assert!(clauses.push("Good morning.").is_empty());
        assert_eq!(clauses.push(" H"), ["Good morning. "]);
        assert_eq!(clauses.finish().as_deref(), Some("H"));
        assert_eq!(clauses.finish(), None);
        assert!(clauses.push("Never mind").is_empty());
        clauses.clear();
        assert_eq!(clauses.push("This. "), ["This. "]);
        assert_eq!(clauses.finish(), None);
    }

    #[test]
    fn long_ones_end_at_a_comma_or_a_blank() {
        let listed = "one two three four five six seven, ".repeat(6);
        let clauses = cut(&listed, 5);
        assert!(clauses.len() >= 2 && clauses[0].ends_with(','), "{clauses:?}");
        let endless = "word ".repeat(200);
        assert!(cut(&endless, 9).iter().all(|clause| clause.chars().count() <= LONGEST));
        let solid = "x".repeat(1000);
        let clauses = cut(&solid, 13);
        assert!(clauses.iter().all(|clause| clause.len() <= LONGEST));
        assert_eq!(clauses.concat(), solid);
    }

    #[test]
    fn nothing_is_lost() {
        let text = "First, Mr. X said: \"3.14!\" Then… nothing; maybe (no.) more? Yes: 10:30 a.m. it is";
        for text in [text, "  Two\n\n lines . \t", "… ! ?", &"word ".repeat(200), &"é".repeat(1000)] {
            for size in 1..20 {
                assert_eq!(whole(text, size).concat(), text, "{size}");
            }
        }
    }
}
