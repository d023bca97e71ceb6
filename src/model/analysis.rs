//! What a language model says of a conversation that is over (CONTRACT 1.3, 3 S24).

/// How the caller felt about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sentiment {
    /// Well.
    Positive,
    /// Neither.
    Neutral,
    /// Badly.
    Negative,
}

impl Sentiment {
    /// The word of the database and of the surfaces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Positive => "positive",
            Self::Neutral => "neutral",
            Self::Negative => "negative",
        }
    }

    /// Reads [`Sentiment::as_str`].
    pub fn from_text(text: &str) -> Option<Self> {
        let all = [Self::Positive, Self::Neutral, Self::Negative];
        all.into_iter().find(|sentiment| sentiment.as_str() == text)
    }
}

/// A conversation, summed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Analysis {
    /// What was said, in a few sentences.
    pub summary: String,
    /// How the caller felt about it.
    pub sentiment: Sentiment,
}
