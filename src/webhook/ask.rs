//! One question to a customer's address, signed like a webhook, whose answer is wanted: a function that a language model
//! calls. Once only, within a time, and no more than so many bytes of an answer are read. Nothing of it is logged.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, USER_AGENT};

use super::{guard, sign};
use crate::config::Webhooks;
use crate::model::{Secret, Timestamp};

/// Longest id of a question.
const ID_MAX: usize = 200;

/// What is asked.
pub struct Question<'a> {
    /// Where; looked at again by the guard.
    pub url: &'a str,
    /// JSON.
    pub body: String,
    /// Those that sign, newest first.
    pub secrets: &'a [Secret],
    /// The same for the same question.
    pub id: &'a str,
    /// Now.
    pub at: Timestamp,
    /// From the name's resolution to the answer's last byte.
    pub within: Duration,
    /// Longest answer, bytes.
    pub most: usize,
}

/// Why there is no answer. The words are for a language model, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The address must not be reached.
    #[error("its address is not permitted")]
    Refused,
    /// No connection.
    #[error("it cannot be reached")]
    Unreachable,
    /// It took too long. It may have done what it was asked.
    #[error("it did not answer in time")]
    Late,
    /// The connection broke. It may have done what it was asked.
    #[error("the connection broke")]
    Broken,
    /// It answered with a status that is not 2xx.
    #[error("it answered with status {0}")]
    Status(u16),
    /// Its answer is longer than anybody wants to hear.
    #[error("its answer is too long")]
    TooLong,
    /// Its answer is no text.
    #[error("its answer is no text")]
    NotText,
    /// The secrets could not be had.
    #[error("it could not be asked")]
    Unsigned,
}

impl Question<'_> {
    /// Asks, and gives the text of the answer.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(self, client: &reqwest::Client, config: &Webhooks) -> Result<String, AskError> {
        let within = self.within;
        tokio::time::timeout(within, self.put(client, config)).await.unwrap_or(Err(AskError::Late))
    }

    async fn put(self, client: &reqwest::Client, config: &Webhooks) -> Result<String, AskError> {
        let url = guard::check_url(self.url, config).map_err(|_| AskError::Refused)?;
        // A model writes ids, and only what a header can hold is sent in one.
        let id: String = self.id.chars().filter(char::is_ascii_graphic).take(ID_MAX).collect();
        let mut request = client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("trunkline/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &id)
            .header("webhook-timestamp", self.at.seconds());
        if let Some(signed) = sign::signatures(self.secrets, &id, self.at.seconds(), self.body.as_bytes()) {
            request = request.header("webhook-signature", signed);
        }
        let mut response = request.body(self.body).send().await.map_err(|error| {
            if guard::is_forbidden(&error) {
                AskError::Refused
            } else if error.is_connect() || error.is_timeout() {
                AskError::Unreachable
            } else {
                AskError::Broken
            }
        })?;
        let status = response.status();
        if !status.is_success() {
            return Err(AskError::Status(status.as_u16()));
        }
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| AskError::Broken)? {
            if answer.len() + chunk.len() > self.most {
                return Err(AskError::TooLong);
            }
            answer.extend_from_slice(&chunk);
        }
        String::from_utf8(answer).map_err(|_| AskError::NotText)
    }
}
