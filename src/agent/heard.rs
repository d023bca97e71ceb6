//! How much of a text was heard when its sound was cut: by the time that was played, to the end of a word.

/// The part of `text` that fits into `ms` of `length_ms`; nothing where its length is not known. Ends behind a whole
/// word: half a word was not heard.
pub(super) fn heard_of(text: &str, ms: u32, length_ms: Option<u32>) -> &str {
    let Some(length_ms) = length_ms.filter(|length| *length > 0) else { return "" };
    if ms >= length_ms {
        return text;
    }
    let chars = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    let spoken = chars.saturating_mul(ms.into()) / u64::from(length_ms);
    let spoken = usize::try_from(spoken).unwrap_or(usize::MAX);
    let end = text.char_indices().nth(spoken).map_or(text.len(), |(at, _)| at);
    let inside = text[end..].chars().next().is_some_and(|next| !next.is_whitespace());
    let part = &text[..end];
    if inside {
        part.rfind(char::is_whitespace).map_or("", |at| part[..at].trim_end())
    } else {
        part.trim_end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_ends_with_a_whole_word() {
        let text = "Your appointment is on Tuesday.";
        for (ms, length, heard) in [
            (0, Some(3100), ""),
            (300, Some(3100), ""),
            (500, Some(3100), "Your"),
            (1600, Some(3100), "Your appointment"),
            (2300, Some(3100), "Your appointment is on"),
            (3100, Some(3100), text),
            (9999, Some(3100), text),
            (500, None, ""),
            (500, Some(0), ""),
        ] {
            assert_eq!(heard_of(text, ms, length), heard, "{ms}");
        }
        assert_eq!(heard_of("één twee drie", 500, Some(1000)), "één");
    }
}
