//! The settings of speech and language: voices, recognisers and the model that answers. An empty key or address is a
//! service that is not used. Keys are never printed.

use serde::Deserialize;

use super::load;
use crate::model::Secret;

/// `[speech]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Speech {
    /// Voices, tried in order: `embedded`, `espeak`, `flite`, `google`, `openai`, `azure`, `elevenlabs`, `polly`.
    pub tts: Vec<String>,
    /// Recognisers, tried in order: `openai`, `openai-realtime`, `deepgram`, `vosk`; none: nothing is transcribed.
    pub stt: Vec<String>,
    /// Names of voices that stand for others: `en-US-Neural2-A=openai:onyx`.
    pub voices: Vec<String>,
    /// Prompt cache in memory, bytes.
    pub cache_bytes: usize,
    /// Google Cloud Text-to-Speech.
    pub google: Google,
    /// OpenAI, and whatever speaks like it.
    pub openai: OpenAi,
    /// Azure's voices.
    pub azure: Azure,
    /// ElevenLabs.
    pub elevenlabs: ElevenLabs,
    /// Amazon Polly.
    pub polly: Polly,
    /// Deepgram.
    pub deepgram: Deepgram,
    /// A vosk-server.
    pub vosk: Vosk,
}

/// `[speech.google]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Google {
    /// Where it is.
    pub base_url: String,
    /// API key.
    #[serde(deserialize_with = "load::secret")]
    pub api_key: Secret,
}

/// `[speech.openai]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenAi {
    /// Where it is, with its version.
    pub base_url: String,
    /// API key; a server of one's own may need none.
    #[serde(deserialize_with = "load::secret")]
    pub api_key: Secret,
    /// Model that speaks.
    pub tts_model: String,
    /// Model that transcribes utterances.
    pub stt_model: String,
    /// Model that transcribes while somebody speaks.
    pub realtime_model: String,
}

/// `[speech.azure]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Azure {
    /// Where it is; empty: the region's own address.
    pub base_url: String,
    /// Region, such as `westeurope`.
    pub region: String,
    /// Subscription key.
    #[serde(deserialize_with = "load::secret")]
    pub api_key: Secret,
}

/// `[speech.elevenlabs]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ElevenLabs {
    /// Where it is.
    pub base_url: String,
    /// API key.
    #[serde(deserialize_with = "load::secret")]
    pub api_key: Secret,
    /// Model.
    pub model: String,
    /// Voice id that names of other services stand for: a woman's.
    pub voice_female: String,
    /// The same: a man's.
    pub voice_male: String,
}

/// `[speech.polly]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Polly {
    /// Where it is; empty: the region's own address.
    pub base_url: String,
    /// Region, such as `us-east-1`.
    pub region: String,
    /// Access key id.
    #[serde(deserialize_with = "load::secret")]
    pub access_key: Secret,
    /// Secret access key.
    #[serde(deserialize_with = "load::secret")]
    pub secret_key: Secret,
    /// `standard`, `neural`, `long-form` or `generative`.
    pub engine: String,
}

/// `[speech.deepgram]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deepgram {
    /// Where it is.
    pub url: String,
    /// API key.
    #[serde(deserialize_with = "load::secret")]
    pub api_key: Secret,
    /// Model.
    pub model: String,
}

/// `[speech.vosk]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vosk {
    /// Where it is.
    pub url: String,
}

/// `[llm]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Llm {
    /// An OpenAI-compatible server, with its version; empty: none.
    pub base_url: String,
    /// API key; a server of one's own may need none.
    #[serde(deserialize_with = "load::secret")]
    pub api_key: Secret,
    /// Model.
    pub model: String,
    /// The first word must be there so soon, milliseconds.
    pub first_token_timeout_ms: u32,
    /// The last word must be there so soon, seconds.
    pub timeout_s: u32,
}

impl Default for Speech {
    fn default() -> Self {
        Self {
            tts: vec!["embedded".into()],
            stt: Vec::new(),
            voices: Vec::new(),
            cache_bytes: 64 * 1024 * 1024,
            google: Google::default(),
            openai: OpenAi::default(),
            azure: Azure::default(),
            elevenlabs: ElevenLabs::default(),
            polly: Polly::default(),
            deepgram: Deepgram::default(),
            vosk: Vosk::default(),
        }
    }
}

impl Default for Google {
    fn default() -> Self {
        Self { base_url: "https://texttospeech.googleapis.com".into(), api_key: Secret::default() }
    }
}

impl Default for OpenAi {
    fn default() -> Self {
        Self {
            base_url: "https://api.openai.com/v1".into(),
            api_key: Secret::default(),
            tts_model: "tts-1".into(),
            stt_model: "whisper-1".into(),
            realtime_model: "gpt-4o-mini-transcribe".into(),
        }
    }
}

impl Default for ElevenLabs {
    fn default() -> Self {
        Self {
            base_url: "https://api.elevenlabs.io".into(),
            api_key: Secret::default(),
            model: "eleven_flash_v2_5".into(),
            voice_female: "21m00Tcm4TlvDq8ikWAM".into(),
            voice_male: "pNInz6obpgDQGcFmaJgB".into(),
        }
    }
}

impl Default for Polly {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            region: "us-east-1".into(),
            access_key: Secret::default(),
            secret_key: Secret::default(),
            engine: "neural".into(),
        }
    }
}

impl Default for Deepgram {
    fn default() -> Self {
        Self {
            url: "wss://api.deepgram.com/v1/listen".into(),
            api_key: Secret::default(),
            model: "nova-3".into(),
        }
    }
}

impl Default for Vosk {
    fn default() -> Self {
        Self { url: "ws://127.0.0.1:2700".into() }
    }
}

impl Default for Llm {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            api_key: Secret::default(),
            model: String::new(),
            first_token_timeout_ms: 5000,
            timeout_s: 30,
        }
    }
}
