//! A real PostgreSQL for the tests of one process: made in a temporary folder when the first test wants it, spoken to
//! by a Unix socket there, stopped and removed when the process ends, however it ends. Each test has a database of
//! its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs the server until its standard input ends, which the test process holds open as long as it lives. `initdb` and
/// `postgres` refuse to work for root. Nothing is kept, so nothing has to reach the disk. A server that ends is started
/// again, but not while there is a file `down`: so a test can take it away.
const KEEPER: &str = r#"
set -eu
dir=$1 bin=$2
trap '' INT TERM
as() { exec "$@"; }
if [ "$(id -u)" -eq 0 ]; then
    user=postgres
    id -u "$user" >/dev/null 2>&1 || user=nobody
    chown "$user" "$dir"
    as() { exec setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups "$@"; }
fi
cd "$dir"
trap 'rm -rf "$dir"' EXIT
(as "$bin/initdb" -D "$dir/data" -U trunkline -A trust --no-sync -E UTF8 --locale=C) >"$dir/log" 2>&1
serve() {
    until [ -e end ]; do
        [ -e down ] || (as "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync=off \
            -c full_page_writes=off -c max_connections=1000 -c shared_buffers=64MB \
            -c log_min_messages=warning) || true
        sleep 0.05
    done
}
serve >>"$dir/log" 2>&1 &
server=$!
cat >/dev/null
touch end
# It may be starting just now, and have no number yet.
while kill -0 "$server" 2>/dev/null; do
    kill -INT "$(head -n 1 data/postmaster.pid 2>/dev/null)" 2>/dev/null || true
    sleep 0.05
done
"#;

/// The running server.
struct Postgres {
    /// Its folder, in which its socket is, too.
    home: PathBuf,
    bin: PathBuf,
    /// Its standard input is what keeps the server.
    _keeper: Child,
}

static SERVER: OnceLock<Postgres> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(1);

/// An empty database, removed again when this is dropped.
pub(crate) struct Database {
    /// Its name on the server.
    pub(crate) name: String,
}

impl Database {
    /// Makes it, on a server that is started if there is none yet.
    pub(crate) fn new() -> Self {
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        run(program("psql", "postgres"), &format!("CREATE DATABASE {name}")).unwrap();
        Self { name }
    }

    /// What trunkline is given to find it.
    pub(crate) fn url(&self) -> String {
        format!("postgres://trunkline@localhost/{}?host={}", self.name, server().home.display())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // If that fails, the database goes with the server.
        let _ = run(program("psql", "postgres"), &drop);
    }
}

fn server() -> &'static Postgres {
    SERVER.get_or_init(|| {
        let home = std::env::temp_dir().join(format!("trunkline-postgres-{}", std::process::id()));
        // What a process of the same number left behind.
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).unwrap();
        let bin = programs();
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .args([&home, &bin])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Postgres { home, bin, _keeper: keeper };
        server.wait();
        server
    })
}

impl Postgres {
    /// Until it answers; half a minute is ten times what it needs.
    fn wait(&mut self) {
        for _ in 0..300 {
            if run(self.program("psql", "postgres"), "SELECT 1").is_ok() {
                return;
            }
            assert!(self._keeper.try_wait().unwrap().is_none(), "PostgreSQL ended: {}", self.log());
            #[expect(clippy::disallowed_methods, reason = "another process is waited for")]
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("PostgreSQL did not start: {}", self.log());
    }

    fn program(&self, name: &str, database: &str) -> Command {
        let mut program = Command::new(self.bin.join(name));
        program.args(["-U", "trunkline", "-d", database, "-h"]).arg(&self.home);
        if name == "psql" {
            program.args(["-q", "-X", "-v", "ON_ERROR_STOP=1"]);
        }
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        program
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }
}

/// One of PostgreSQL's programs that works on this database.
pub(crate) fn program(name: &str, database: &str) -> Command {
    server().program(name, database)
}

/// Runs it with this input; what it prints, or what went wrong.
pub(crate) fn run(mut program: Command, input: &str) -> Result<Vec<u8>, String> {
    let mut process = program.spawn().map_err(|error| error.to_string())?;
    // A server that is not there yet ends the program before it has read this.
    let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
    let output = process.wait_with_output().map_err(|error| error.to_string())?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(output.stdout) } else { Err(error) }
}

/// The folder of PostgreSQL's programs: the newest where Debian has them, else the first of the search path.
fn programs() -> PathBuf {
    let whole = |folder: &Path| ["initdb", "postgres", "psql"].iter().all(|name| folder.join(name).exists());
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = versions.map(|entry| entry.path().join("bin")).filter(|bin| whole(bin)).collect();
    found.sort();
    let search = std::env::var_os("PATH").unwrap_or_default();
    let newest = found.pop().or_else(|| std::env::split_paths(&search).find(|folder| whole(folder)));
    newest.expect("PostgreSQL's programs are here: Debian's package `postgresql`")
}
