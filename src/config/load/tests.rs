//! The configuration as an operator gives it: right, wrong, and from everywhere at once.

use super::*;
use std::io::Write;

fn none() -> std::iter::Empty<(String, String)> {
    std::iter::empty()
}

fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (String, String)> + 'a {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
}

/// A file of this text that is removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("trunkline-config-{}-{name}", std::process::id()));
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing hangs on it.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn from_text(name: &str, text: &str) -> Result<Config, ConfigError> {
    let file = Scratch::new(name, text);
    load(Some(&file.0), none())
}

fn refusal(name: &str, text: &str) -> String {
    from_text(name, text).unwrap_err().to_string()
}

/// Compared as debug text, which prints every field but the secret.
fn same(a: &Config, b: &Config) {
    assert_eq!(format!("{a:#?}"), format!("{b:#?}"));
}

#[test]
fn the_sample_is_the_default() {
    same(&from_text("sample", SAMPLE).unwrap(), &Config::default());
    same(&load(None, none()).unwrap(), &Config::default());
}

#[test]
fn the_sample_has_every_setting_once() {
    let schema = schema();
    let mut settings = Vec::new();
    for (section, value) in &schema {
        let table = match value {
            Value::Array(rows) => rows[0].as_table().unwrap(),
            other => other.as_table().unwrap(),
        };
        gather(section, table, &mut settings);
    }
    // The debug text has one line a field: a setting missing from the sample would be missing here.
    let mut config = Config::default();
    config.trunk.push(crate::config::TrunkConfig::default());
    let text = format!("{config:#?}");
    for setting in &settings {
        let (_, field) = setting.rsplit_once('.').unwrap();
        assert!(text.contains(&format!("{field}: ")), "the sample has {setting}, the configuration has not");
    }
    let field_lines = text.lines().filter(|l| is_field(l)).count();
    assert_eq!(settings.len(), field_lines, "{settings:?}\n{text}");
}

/// The settings of a section and of the sections in it.
fn gather(section: &str, table: &Table, settings: &mut Vec<String>) {
    for (name, value) in table {
        let path = format!("{section}.{name}");
        match value {
            Value::Table(inner) => gather(&path, inner, settings),
            _ => settings.push(path),
        }
    }
}

/// A line of the debug text that begins a field of a section, not a section or an entry of a list.
fn is_field(line: &str) -> bool {
    let indent = line.len() - line.trim_start().len();
    let Some((name, value)) = line.trim_start().split_once(": ") else { return false };
    let section = value.ends_with('{') || name == "trunk";
    !section
        && (indent == 8 || indent == 12)
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[test]
fn a_trunk_of_the_sample_has_the_default_settings() {
    let text = "[[trunk]]\nname = \"a\"\nproxy = \"sip:127.0.0.1:5070\"\n";
    let trunk = &from_text("trunk", text).unwrap().trunk[0];
    let schema = schema();
    let sample: crate::config::TrunkConfig = schema["trunk"][0].clone().try_into().unwrap();
    let mut expected = crate::config::TrunkConfig::default();
    assert_eq!(format!("{sample:?}"), format!("{expected:?}"));
    expected.name = "a".into();
    expected.proxy = "sip:127.0.0.1:5070".into();
    assert_eq!(format!("{trunk:?}"), format!("{expected:?}"));
}

#[test]
fn the_environment_wins_over_the_file() {
    let file = Scratch::new("wins", "[http]\nlisten = \"127.0.0.1:1\"\nmax_body_bytes = 2048\n");
    let given = env(&[
        ("TRUNKLINE_HTTP__LISTEN", "127.0.0.1:3100"),
        ("TRUNKLINE_HTTP__TRUSTED_PROXIES", "10.0.0.0/8, ::1/128,"),
        ("TRUNKLINE_WEBHOOKS__ALLOW_HTTP", "true"),
        ("TRUNKLINE_WEBHOOKS__TIME_SCALE", "0.01"),
        ("TRUNKLINE_RTP__PORT_MIN", "20002"),
        ("TRUNKLINE_RTP__PORT_MAX", "20101"),
        ("TRUNKLINE_LOG", "debug"),
        ("PATH", "/bin"),
    ]);
    let config = load(Some(&file.0), given).unwrap();
    assert_eq!(config.http.listen[0].port(), 3100);
    assert_eq!(config.http.max_body_bytes, 2048);
    assert_eq!(config.http.trusted_proxies, ["10.0.0.0/8", "::1/128"]);
    assert!(config.webhooks.allow_http);
    assert!((config.webhooks.time_scale - 0.01).abs() < 1e-9);
    assert_eq!((config.rtp.port_min, config.rtp.port_max), (20_002, 20_101));
}

#[test]
fn trunks_can_come_from_the_environment() {
    let given = env(&[
        ("TRUNKLINE_TRUNK__0__NAME", "first"),
        ("TRUNKLINE_TRUNK__0__PROXY", "sip:127.0.0.1:5070;transport=udp"),
        ("TRUNKLINE_TRUNK__0__CODECS", "PCMA"),
        ("TRUNKLINE_TRUNK__1__NAME", "second"),
        ("TRUNKLINE_TRUNK__1__PROXY", "sip:[::1]:5071"),
        ("TRUNKLINE_TRUNK__1__PASSWORD", "${env:PASSWORD}"),
        ("PASSWORD", "hush"),
    ]);
    let config = load(None, given).unwrap();
    assert_eq!(config.trunk.len(), 2);
    assert_eq!(config.trunk[0].codecs, ["PCMA"]);
    assert_eq!(config.trunk[1].password.0, "hush");
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn unknown_settings_are_named() {
    assert_eq!(refusal("u1", "[http]\nlisten_on = \"x\"\n"), "unknown setting `http.listen_on`");
    assert_eq!(refusal("u2", "[htp]\n"), "unknown setting `htp`");
    assert_eq!(refusal("u3", "[[trunk]]\nname = \"a\"\nproxi = \"x\"\n"), "unknown setting `trunk.0.proxi`");
    for name in [
        "TRUNKLINE_HTTP__LISTN",
        "TRUNKLINE_HTTP",
        "TRUNKLINE_HTTP_LISTEN",
        "TRUNKLINE_",
        "TRUNKLINE_TRUNK__0__NAMES",
        "TRUNKLINE_TRUNK__x__NAME",
        "TRUNKLINE_TRUNK__100__NAME",
        "TRUNKLINE_TRUNK__NAME",
    ] {
        let error = load(None, env(&[(name, "1")])).unwrap_err().to_string();
        assert_eq!(error, format!("unknown setting: the variable {name} names none"));
    }
}

#[test]
fn values_of_the_wrong_kind_are_named() {
    for (text, wanted) in [
        ("[http]\nlisten = 3000\n", "`http.listen` must be a list"),
        ("[http]\nmax_body_bytes = \"many\"\n", "`http.max_body_bytes` must be a whole number"),
        ("[webhooks]\nallow_http = 1\n", "`webhooks.allow_http` must be true or false"),
        ("[webhooks]\nallow_cidrs = true\n", "`webhooks.allow_cidrs` must be a list"),
        ("[speech]\ntts = [1]\n", "`speech.tts.0` must be a text"),
        ("http = 3\n", "`http` must be a section, […]"),
        ("trunk = \"a\"\n", "`trunk` must be rows of settings, [[…]]"),
    ] {
        assert_eq!(refusal("kind", text), wanted, "{text}");
    }
    for text in [
        "[http]\nlisten = \"localhost\"\n",
        "[rtp]\nport_min = 70000\n",
        "[limits]\nmax_calls = -1\n",
        "[rtp]\nbind = \"here\"\n",
    ] {
        let setting = text.lines().last().unwrap().split(' ').next().unwrap();
        let error = refusal("range", text);
        assert!(error.contains(setting), "{error}");
    }
    let whole = from_text("whole", "[webhooks]\ntime_scale = 2\n").unwrap();
    assert!((whole.webhooks.time_scale - 2.0).abs() < 1e-9);
}

#[test]
fn values_that_make_no_sense_are_named() {
    for (text, setting) in [
        ("[rtp]\nport_min = 10001\n", "`rtp.port_min`"),
        ("[rtp]\nport_min = 10000\nport_max = 10000\n", "`rtp.port_max`"),
        ("[http]\ntrusted_proxies = [\"10.0.0.0/33\"]\n", "`http.trusted_proxies`"),
        ("[webhooks]\nallow_cidrs = [\"x/8\"]\n", "`webhooks.allow_cidrs`"),
        ("[webhooks]\ntime_scale = -1.0\n", "`webhooks.time_scale`"),
        ("[webhooks]\ntime_scale = nan\n", "`webhooks.time_scale`"),
        ("[webhooks]\nresolver = \"dns\"\n", "`webhooks.resolver`"),
        ("[webhooks]\nmax_concurrent_per_host = 513\n", "`webhooks.max_concurrent_per_host`"),
        ("[amd]\ninitial_silence = \"perhaps\"\n", "`amd.initial_silence`"),
        ("[speech]\ntts = [\"embeded\"]\n", "`speech.tts`"),
        ("[speech]\ntts = []\n", "`speech.tts`"),
        ("[speech]\nstt = [\"whisper\"]\n", "`speech.stt`"),
        ("[speech]\nvoices = [\"alloy\"]\n", "`speech.voices`"),
        ("[speech]\ntts = [\"openai\"]\n", "`speech.openai.api_key`"),
        ("[speech]\nstt = [\"deepgram\"]\n", "`speech.deepgram.api_key`"),
        ("[speech]\ntts = [\"azure\"]\n", "`speech.azure.region`"),
        ("[speech]\ntts = [\"polly\"]\n[speech.polly]\naccess_key = \"a\"\n", "`speech.polly.secret_key`"),
        ("[speech.openai]\nbase_url = \"localhost\"\n", "`speech.openai.base_url`"),
        ("[speech.openai]\napi_key = \"a b\"\n", "`speech.openai.api_key`"),
        ("[speech.vosk]\nurl = \"http://h\"\n", "`speech.vosk.url`"),
        ("[llm]\nbase_url = \"http://h/v1\"\n", "`llm.model`"),
        ("[llm]\ntimeout_s = 0\n", "`llm.timeout_s`"),
        ("[database]\nurl = \"mysql://x\"\n", "`database.url`"),
        ("[limits]\nmax_calls = 0\n", "`limits.max_calls`"),
        ("[sip]\nexternal_address = \"home\"\n", "`sip.external_address`"),
        ("[[trunk]]\nproxy = \"sip:h\"\n", "`trunk.0.name`"),
        ("[[trunk]]\nname = \"a\"\n", "`trunk.0.proxy`"),
        ("[[trunk]]\nname = \"a\"\nproxy = \"http://h\"\n", "`trunk.0.proxy`"),
        ("[[trunk]]\nname = \"a\"\nproxy = \"sip:h;transport=sctp\"\n", "`trunk.0.proxy`"),
        ("[[trunk]]\nname = \"a\"\nproxy = \"sip:h:0\"\n", "`trunk.0.proxy`"),
        ("[[trunk]]\nname = \"a\"\nproxy = \"sip:a b\"\n", "`trunk.0.proxy`"),
        ("[[trunk]]\nname = \"a\"\nproxy = \"sip:h\"\ncodecs = [\"G729\"]\n", "`trunk.0.codecs`"),
        ("[[trunk]]\nname = \"a\"\nproxy = \"sip:h\"\ncaller_id = \"a@b\"\n", "`trunk.0.caller_id`"),
        ("[[trunk]]\nname = \"a\"\nproxy = \"sip:h\"\ndial_prefix = \"0\\r\\n\"\n", "`trunk.0.dial_prefix`"),
        (
            "[[trunk]]\nname = \"a\"\nproxy = \"sip:h\"\n[[trunk]]\nname = \"a\"\nproxy = \"sip:h\"\n",
            "`trunk.1.name`",
        ),
    ] {
        let error = refusal("sense", text);
        assert!(error.starts_with(setting), "{text}: {error}");
    }
}

#[test]
fn references_are_filled_in() {
    let key = Scratch::new("key", "s3cret\n");
    let text = format!(
        "[[trunk]]\nname = \"${{env:A}}-${{env:B}}\"\nproxy = \"sip:h:5060\"\npassword = \"${{file:{}}}\"\n",
        key.0.display()
    );
    let file = Scratch::new("refs", &text);
    let config = load(Some(&file.0), env(&[("A", "x"), ("B", "${env:A}")])).unwrap_err();
    // What a variable holds is not looked at again, and makes no name here.
    assert!(config.to_string().starts_with("`trunk.0.name`"), "{config}");
    let config = load(Some(&file.0), env(&[("A", "x"), ("B", "y")])).unwrap();
    assert_eq!((config.trunk[0].name.as_str(), config.trunk[0].password.0.as_str()), ("x-y", "s3cret"));

    let missing = refusal("m1", "[database]\nurl = \"sqlite://${env:NOT_SET_ANYWHERE}\"\n");
    assert_eq!(missing, "`database.url` wants the variable NOT_SET_ANYWHERE, which is not set");
    assert!(refusal("m2", "[database]\nurl = \"${file:/nonexistent}\"\n").contains("/nonexistent"));
    for text in ["${env", "${what:x}", "${}"] {
        let error = refusal("m3", &format!("[database]\nurl = \"{text}\"\n"));
        assert!(error.starts_with("`database.url` has a `${"), "{error}");
    }
}

#[test]
fn the_keys_of_services_are_never_shown() {
    let text = "[speech]\ntts = [\"openai\", \"polly\"]\n[speech.openai]\napi_key = \"hush1\"\n\
                [speech.polly]\naccess_key = \"hush2\"\nsecret_key = \"hush3\"\n[llm]\napi_key = \"hush4\"\n";
    let config = from_text("keys", text).unwrap();
    assert_eq!(config.speech.openai.api_key.0, "hush1");
    assert!(!format!("{config:?}").contains("hush"));
    // A server of one's own needs no key.
    let own = "[speech]\ntts = [\"openai\"]\n[speech.openai]\nbase_url = \"http://127.0.0.1:8880/v1\"\n";
    assert!(from_text("own", own).is_ok());
    let given = env(&[("TRUNKLINE_SPEECH__OPENAI__API_KEY", "k"), ("TRUNKLINE_SPEECH__STT", "openai,vosk")]);
    let config = load(None, given).unwrap();
    assert_eq!((config.speech.openai.api_key.0.as_str(), config.speech.stt.len()), ("k", 2));
}

#[test]
fn a_number_may_come_by_reference() {
    let file = Scratch::new("number", "[limits]\nmax_calls = \"${env:MANY}\"\n");
    assert_eq!(load(Some(&file.0), env(&[("MANY", "7")])).unwrap().limits.max_calls, 7);
}

#[test]
fn files_that_cannot_be_read_are_named_and_never_shown() {
    let error = load(Some(Path::new("/nonexistent/trunkline.toml")), none()).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nonexistent/trunkline.toml: "));
    let error = refusal("syntax", "[http]\n\n[[trunk]]\npassword = hunter2\n");
    assert!(error.contains(", line 4: "), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    let error = refusal("secret", "[[trunk]]\nname = \"a\"\nproxy = \"sip:h\"\npassword = 12345\n");
    assert_eq!(error, "`trunk.0.password` must be a text");
}
