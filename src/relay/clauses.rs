//! Words that come in pieces, cut where a voice would breathe: an application streams tokens, and each clause is spoken
//! as soon as it is whole. Pure; owns the words that are not yet one.

/// A clause may not become longer than this, characters; it is cut at a blank then.
const CLAUSE_MAX: usize = 240;

/// Ends of clauses, where a blank follows.
const ENDS: [char; 8] = ['.', '!', '?', ';', ':', '。', '！', '？'];

/// Pieces on their way to being clauses.
#[derive(Debug, Default)]
pub(super) struct Clauses {
    pending: String,
}

impl Clauses {
    /// Takes a piece in, and gives what is whole now; `last` makes everything whole.
    pub(super) fn push(&mut self, token: &str, last: bool) -> Vec<String> {
        self.pending.push_str(token);
        let mut whole = Vec::new();
        while let Some(end) = boundary(&self.pending) {
            let rest = self.pending.split_off(end);
            whole.push(std::mem::replace(&mut self.pending, rest));
        }
        if last && !self.pending.is_empty() {
            whole.push(std::mem::take(&mut self.pending));
        }
        whole
    }

    /// Forgets what is not whole.
    pub(super) fn clear(&mut self) {
        self.pending.clear();
    }
}

/// Where the first clause ends, in bytes: behind the blanks that follow its end, so that nothing of the text is lost.
fn boundary(text: &str) -> Option<usize> {
    let mut ended = false;
    let (mut blank, mut count) = (None, 0);
    for (at, c) in text.char_indices() {
        if ended && !c.is_whitespace() && text[..at].chars().next_back().is_some_and(char::is_whitespace) {
            return Some(at);
        }
        ended = if c.is_whitespace() { ended || c == '\n' } else { ENDS.contains(&c) };
        count += 1;
        if c.is_whitespace() {
            blank = Some(at + c.len_utf8());
        }
        if count >= CLAUSE_MAX {
            return blank.or(Some(at + c.len_utf8()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_end_where_a_voice_breathes() {
        let mut clauses = Clauses::default();
        let mut told = Vec::new();
        for token in ["Sure", ", on", "e mo", "ment. ", "It costs 3.50 ", "today! Do", " you"] {
            told.extend(clauses.push(token, false));
        }
        assert_eq!(told, ["Sure, one moment. ", "It costs 3.50 today! "]);
        assert_eq!(clauses.push(" agree?", true), ["Do you agree?"]);
        assert!(clauses.push("", true).is_empty());
    }

    #[test]
    fn no_clause_is_endless_and_no_word_is_lost() {
        let words = "word ".repeat(200);
        let mut clauses = Clauses::default();
        let mut told = clauses.push(&words, false);
        told.extend(clauses.push("", true));
        assert!(told.iter().all(|clause| clause.chars().count() <= CLAUSE_MAX), "{told:?}");
        assert_eq!(told.concat(), words);
        let long = "é".repeat(1000);
        assert_eq!(Clauses::default().push(&long, true).concat(), long);
    }
}
