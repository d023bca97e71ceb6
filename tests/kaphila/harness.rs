//! Starts the real program on free loopback ports and asks it over its command line and its sockets. Everything
//! that is started is ended by its own handle; what is shared by all tests ends when the test program does.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::api::{self, Key};
use crate::carrier::Carrier;

/// The program under test.
pub(crate) const TRUNKLINE: &str = env!("CARGO_BIN_EXE_trunkline");
/// No test may take longer.
const LONGEST_TEST: Duration = Duration::from_secs(120);
/// Ports of one server: for two hundred calls.
const RTP_PORTS: u16 = 400;
/// Lines of a log shown when a test fails.
const TAIL_BYTES: u64 = 6000;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime can be made")
});
static WORLD: OnceCell<World> = OnceCell::const_new();

/// Runs one test on the runtime that all tests share (the shared far ends and the HTTP client live on it).
pub(crate) fn go<T>(test: impl Future<Output = T>) -> T {
    go_within(LONGEST_TEST, test)
}

/// The same for a test that is given more time.
pub(crate) fn go_within<T>(longest: Duration, test: impl Future<Output = T>) -> T {
    let tail = SharedTail;
    let result = RUNTIME.block_on(async {
        tokio::time::timeout(longest, test).await.expect("the test ends within its time")
    });
    drop(tail);
    result
}

struct SharedTail;

impl Drop for SharedTail {
    fn drop(&mut self) {
        if let (true, Some(world)) = (std::thread::panicking(), WORLD.get()) {
            show_tail("shared server", &world.server.process.log);
        }
    }
}

/// The server and the carrier that most tests share.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) carrier: Carrier,
}

/// The shared world, started on first use.
pub(crate) async fn world() -> &'static World {
    WORLD
        .get_or_init(|| async {
            let home = home("shared");
            let carrier = Carrier::start(&home.join("carrier"), true).await;
            let server = Server::start_in(home, &[], true).await;
            server.trunk("carrier", carrier.addr, &[]);
            server.put_sound("custom/welcome.wav", &crate::audio::chirp(1.0));
            World { server, carrier }
        })
        .await
}

impl World {
    /// A key with its own balance on the carrier's trunk, with room for many requests.
    pub(crate) fn key(&self, credits: &str) -> Key {
        self.server.key(&["--credits", credits, "--trunks", "carrier", "--rate-limit", "10000"])
    }

    /// A key on trunks of its own, one for each address, named in order.
    pub(crate) fn key_on(&self, credits: &str, far_ends: &[SocketAddr]) -> (Key, Vec<String>) {
        self.server.key_on(credits, far_ends)
    }
}

/// Polls until there is something, or fails saying what was awaited.
pub(crate) async fn until<T>(seconds: f64, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        sleep(Duration::from_millis(15)).await;
    }
}

/// A port that nothing listens on, for UDP and TCP, never given twice. Above the range the carrier takes for RTP.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..1000 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let port = tcp.local_addr().expect("a bound socket has an address").port();
        let free = port > 40_000 && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free && GIVEN.lock().expect("no test panics here").insert(port) {
            return port;
        }
    }
    panic!("no free port");
}

/// RTP ports for one server, below the range the carrier takes. Whoever holds the TCP port of the first has them all:
/// other runs of the tests may be under way on this machine.
fn rtp_ports() -> (TcpListener, (u16, u16)) {
    let firsts = (10_000..29_600).step_by(RTP_PORTS.into());
    let lock =
        |first| Some((TcpListener::bind((Ipv4Addr::LOCALHOST, first)).ok()?, (first, first + RTP_PORTS - 2)));
    firsts.into_iter().find_map(lock).expect("there are free ports")
}

/// Waits until somebody has bound this UDP address.
pub(crate) async fn wait_bound(addr: SocketAddr, process: &mut Process) {
    until(10.0, &format!("{} listens on {addr}", process.name), async || {
        process.must_run();
        UdpSocket::bind(addr).is_err().then_some(())
    })
    .await;
}

/// A folder of this run's own.
pub(crate) fn home(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let runs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kaphila");
    let path = run_folder(&runs).join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir_all(&path).expect("the target folder can be written");
    path
}

/// This run's folder among others'. Those of runs that are over are removed.
pub(crate) fn run_folder(runs: &Path) -> PathBuf {
    for run in std::fs::read_dir(runs).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(run.file_name()).exists() {
            // Another run may be removing it too.
            let _ = std::fs::remove_dir_all(run.path());
        }
    }
    runs.join(std::process::id().to_string())
}

/// A running program, killed when dropped; its output goes to a file that is shown when the test fails.
pub(crate) struct Process {
    name: String,
    child: Child,
    pub(crate) log: PathBuf,
    group: bool,
}

impl Process {
    /// Starts it.
    pub(crate) fn start(name: &str, command: &mut Command, log: PathBuf) -> Self {
        let child = output_to(command, &log).stdin(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {name}: {error}; run tests/run"));
        Self { name: name.into(), child, log, group: false }
    }

    /// Starts it as the head of a process group, which is ended whole: for programs that start programs.
    pub(crate) fn start_group(name: &str, command: &mut Command, log: PathBuf) -> Self {
        let mut process = Self::start(name, command.process_group(0), log);
        process.group = true;
        process
    }

    /// Starts it under a shell that ends it when the test program is gone, for what lives in statics (these are
    /// never dropped). The shell waits on a pipe that only the test program holds open.
    pub(crate) fn start_shared(name: &str, program: &Command, log: PathBuf) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#""$@" </dev/null & cat >/dev/null; kill -KILL 0"#, "sh"]);
        shell.arg(program.get_program()).args(program.get_args()).process_group(0).stdin(Stdio::piped());
        for (variable, value) in program.get_envs() {
            shell.env(variable, value.unwrap_or_default());
        }
        let child = output_to(&mut shell, &log).spawn().expect("sh starts");
        Self { name: name.into(), child, log, group: true }
    }

    /// Fails the test if it has ended.
    pub(crate) fn must_run(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
            panic!("{} has ended: {status}\n{}", self.name, tail(&self.log));
        }
    }

    /// Waits for its end.
    pub(crate) async fn exited(&mut self, seconds: f64) -> ExitStatus {
        let what = format!("{} ends", self.name);
        until(seconds, &what, async || self.child.try_wait().expect("a child can be waited for")).await
    }

    /// Sends a signal by name to this process.
    pub(crate) fn signal(&self, signal: &str) {
        let target = if self.group { format!("-{}", self.child.id()) } else { self.child.id().to_string() };
        let sent = Command::new("kill").args(["-s", signal, "--", &target]).stderr(Stdio::null()).status();
        assert!(sent.is_ok(), "kill can be run");
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) || self.group {
            self.signal("KILL");
        }
        // It is gone either way.
        let _ = self.child.wait();
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether its output holds a text.
    pub(crate) fn said(&self, text: &str) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains(text))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            show_tail(&self.name, &self.log);
        }
    }
}

fn output_to<'a>(command: &'a mut Command, log: &Path) -> &'a mut Command {
    let open = || File::options().create(true).append(true).open(log).expect("a log can be written");
    command.stdout(open()).stderr(open())
}

fn tail(log: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(log) {
        let length = file.metadata().map_or(0, |meta| meta.len());
        let seeked = file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)));
        if seeked.is_ok() && file.read_to_end(&mut text).is_err() {
            text.clear();
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn show_tail(name: &str, log: &Path) {
    eprintln!("---- {name}: end of {}\n{}----", log.display(), tail(log));
}

/// The server's database is a file in its folder, or one of a PostgreSQL where `TEST_DATABASE` is `postgres`.
#[path = "../store/postgres.rs"]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(crate) mod postgres;

/// A trunkline server with a database and folders of its own.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) home: PathBuf,
    pub(crate) http: SocketAddr,
    pub(crate) sip: SocketAddr,
    pub(crate) rtp: (u16, u16),
    _rtp_lock: TcpListener,
    /// Lives as long as the server.
    _database: Option<postgres::Database>,
    settings: Vec<(String, String)>,
    wrapper: Vec<String>,
}

impl Server {
    /// Starts one for this test alone.
    pub(crate) async fn start(name: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_in(home(name), settings, false).await
    }

    async fn start_in(home: PathBuf, settings: &[(&str, &str)], shared: bool) -> Self {
        Self::start_wrapped(home, settings, shared, (Vec::new(), Ipv4Addr::LOCALHOST)).await
    }

    /// `wrapper` is a command line that the server's is put behind, with the address at which it is asked.
    pub(crate) async fn start_wrapped(
        home: PathBuf,
        settings: &[(&str, &str)],
        shared: bool,
        (wrapper, asked_at): (Vec<String>, Ipv4Addr),
    ) -> Self {
        let (rtp_lock, rtp) = rtp_ports();
        // A server that listens on more than loopback is asked there all the same.
        let listen = settings.iter().find(|(name, _)| *name == "HTTP__LISTEN");
        let listen = listen.and_then(|(_, value)| value.parse::<SocketAddr>().ok());
        let port = listen.map_or_else(free_port, |listen| listen.port());
        let http = SocketAddr::from((asked_at, port));
        let sip = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let wanted = std::env::var("TEST_DATABASE").is_ok_and(|database| database == "postgres");
        let database = wanted.then(postgres::Database::new);
        let sqlite = || format!("sqlite://{}/trunkline.db", home.display());
        let own = [
            ("HTTP__LISTEN", http.to_string()),
            ("SIP__UDP", sip.to_string()),
            ("RTP__BIND", "127.0.0.1".into()),
            ("RTP__PORT_MIN", rtp.0.to_string()),
            ("RTP__PORT_MAX", rtp.1.to_string()),
            ("DATABASE__URL", database.as_ref().map_or_else(sqlite, postgres::Database::url)),
            ("PATHS__SOUNDS", format!("{}/sounds", home.display())),
            ("PATHS__RECORDINGS", format!("{}/recordings", home.display())),
            ("WEBHOOKS__ALLOW_HTTP", "true".into()),
            ("WEBHOOKS__ALLOW_CIDRS", "127.0.0.1/32".into()),
            ("WEBHOOKS__TIME_SCALE", "0.02".into()),
            ("RATELIMIT__PHONY_PER_MINUTE", "100000".into()),
            ("RATELIMIT__PHONY_PER_HOUR", "100000".into()),
        ];
        let asked = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let settings = own.into_iter().chain(asked).map(|(name, value)| (format!("TRUNKLINE_{name}"), value));
        let settings: Vec<_> = settings.collect();
        std::fs::create_dir_all(home.join("sounds")).expect("the target folder can be written");
        let process = launch(&home, &settings, shared, &wrapper);
        let _rtp_lock = rtp_lock;
        let mut server =
            Self { wrapper, process, home, http, sip, rtp, _rtp_lock, _database: database, settings };
        server.wait_up().await;
        server
    }

    /// Starts one for this test alone whose recordings lie on a disk of their own, of so many bytes. Only the server
    /// and [`Server::recordings`] see that disk, and it goes when the server does.
    pub(crate) async fn start_on_disk_of(name: &str, bytes: u64, settings: &[(&str, &str)]) -> Self {
        let home = home(name);
        let folder = home.join("recordings");
        std::fs::create_dir_all(&folder).expect("the target folder can be written");
        let script = format!("mount -t tmpfs -o size={bytes} tmpfs '{}' && exec \"$@\"", folder.display());
        let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
        let apart = if root { "-m" } else { "-rm" };
        let wrapper = ["unshare", apart, "sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
        Self::start_wrapped(home, settings, false, (wrapper, Ipv4Addr::LOCALHOST)).await
    }

    /// The folder of its recordings, as the server itself sees it.
    pub(crate) fn recordings(&self) -> PathBuf {
        let own = self.home.strip_prefix("/").unwrap_or(&self.home);
        Path::new("/proc").join(self.process.id().to_string()).join("root").join(own).join("recordings")
    }

    async fn wait_up(&mut self) {
        let health = format!("http://{}/health", self.http);
        until(30.0, "the server answers /health", async || {
            self.process.must_run();
            api::CLIENT.get(&health).send().await.ok().filter(|answer| answer.status() == 200)
        })
        .await;
    }

    /// SIGKILL: a crash.
    pub(crate) fn crash(&mut self) {
        self.process.kill();
    }

    /// Starts again on the same database, folders and ports.
    pub(crate) async fn start_again(&mut self) {
        self.process = launch(&self.home, &self.settings, false, &self.wrapper);
        self.wait_up().await;
    }

    /// Runs a set-up command and reads what it prints as JSON.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "trunkline {arguments:?}: {}\n{out}{err}", output.status);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("trunkline {arguments:?}: {error}: {out}"))
    }

    /// Runs a set-up command, whatever comes of it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(TRUNKLINE);
        command.args(arguments).arg("--json").envs(self.settings.iter().cloned()).current_dir(&self.home);
        command.output().expect("the program starts")
    }

    /// Makes a key.
    pub(crate) fn key(&self, options: &[&str]) -> Key {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("key {}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut arguments = vec!["keys", "create", &name];
        arguments.extend_from_slice(options);
        Key::new(self.http, &self.cli(&arguments))
    }

    /// Adds a trunk to this far end.
    pub(crate) fn trunk(&self, name: &str, far_end: SocketAddr, options: &[&str]) {
        let proxy = format!("sip:{far_end};transport=udp");
        let mut arguments = vec!["trunks", "add", name, "--proxy", &proxy];
        arguments.extend_from_slice(options);
        self.cli(&arguments);
    }

    /// A key on trunks of its own, one for each far end; the trunks' endpoint names in order.
    pub(crate) fn key_on(&self, credits: &str, far_ends: &[SocketAddr]) -> (Key, Vec<String>) {
        let names: Vec<_> = far_ends.iter().map(|_| unique("t")).collect();
        for (name, far_end) in names.iter().zip(far_ends) {
            self.trunk(name, *far_end, &[]);
        }
        let trunks = names.join(",");
        let key = self.key(&["--credits", credits, "--trunks", &trunks, "--rate-limit", "10000"]);
        (key, names.iter().map(|name| format!("{name}-endpoint")).collect())
    }

    /// Puts a file among the sounds.
    pub(crate) fn put_sound(&self, name: &str, samples: &[i16]) {
        let path = self.home.join("sounds").join(name);
        std::fs::create_dir_all(path.parent().expect("sounds is a folder")).expect("it can be written");
        crate::audio::write_wav(&path, samples);
    }
}

fn launch(home: &Path, settings: &[(String, String)], shared: bool, wrapper: &[String]) -> Process {
    let mut words = wrapper.iter().map(String::as_str).chain([TRUNKLINE, "serve"]);
    let mut command = Command::new(words.next().expect("there is a program"));
    command.args(words).current_dir(home).envs(settings.iter().cloned());
    let log = home.join("server.log");
    if shared {
        Process::start_shared("server", &command, log)
    } else {
        Process::start("server", &mut command, log)
    }
}

/// A name that no other test has.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A number that no other test dials, with these last four digits.
pub(crate) fn number(last_four: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(4_155_001);
    format!("1{}{last_four}", NEXT.fetch_add(1, Ordering::Relaxed))
}
