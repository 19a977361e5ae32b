//! Real nats-servers on loopback, each with its own folder, ended by their own handles.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use convergio_eventstore::jetstream::{Config, JetStreamLog, Layout};
use convergio_eventstore::{Durability, LogError};

/// Longest wait for a server or a cluster to be ready.
pub(crate) const READY: Duration = Duration::from_secs(60);
pub(crate) const KEY: [u8; 32] = [9; 32];

/// The pinned server's program, installed once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let places = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let mut scripts = places.map(|place| place.join("deploy/nats/install.sh"));
        let script = scripts.find(|script| script.is_file()).expect("the script is there");
        let output = Command::new(script).stderr(Stdio::inherit()).output().expect("runs");
        assert!(output.status.success(), "nats-server cannot be installed");
        PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
    })
}

/// When a server syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    Always,
    Default,
}

/// One server; it may be down.
pub(crate) struct Server {
    pub(crate) client_port: u16,
    folder: PathBuf,
    child: Option<Child>,
}

impl Server {
    /// Starts it on what its folder holds.
    pub(crate) fn start(&mut self) {
        let mut options = std::fs::File::options();
        let log = options.create(true).append(true).open(self.folder.join("server.log"));
        let log = log.expect("a file");
        let child = Command::new(program())
            .arg("-c")
            .arg(self.folder.join("server.conf"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("starts");
        self.child = Some(child);
    }

    /// Ends it at once, as a crash of the process would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("ends");
        }
    }

    /// Stops or continues it: a partition from the others' view.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("runs");
        assert!(sent.success());
    }

    /// Where its files are.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.join("store")
    }
}

/// Servers that belong together.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
    _folder: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &mut self.servers {
            server.kill();
        }
    }
}

/// Ports that nobody uses now.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    listeners.iter().map(|l| l.local_addr().expect("bound").port()).collect()
}

fn config(folder: &Path, number: usize, ports: &[u16], sync: Sync) -> String {
    let servers = ports.len() / 2;
    let (clients, routes) = ports.split_at(servers);
    let sync = if sync == Sync::Always { "sync_interval: always" } else { "" };
    let store = folder.join("store").display().to_string();
    let urls: Vec<String> = routes.iter().map(|p| format!("nats://127.0.0.1:{p}")).collect();
    let cluster = match servers {
        1 => String::new(),
        _ => format!(
            "cluster {{ name: c, no_advertise: true, listen: \"127.0.0.1:{}\", routes: [{}] }}",
            routes[number],
            urls.join(",")
        ),
    };
    let ask = "$SYS.REQ.SERVER.PING.JSZ";
    format!(
        "server_name: n{number}\nlisten: \"127.0.0.1:{}\"\n\
         jetstream {{ store_dir: \"{store}\", max_file_store: 64GB, {sync} }}\n\
         accounts {{\n\
         SYS {{ users: [{{user: sys, password: sys}}],\n\
         exports: [{{service: \"{ask}\", response_type: stream}}] }}\n\
         CVG {{ jetstream: enabled, users: [{{user: cvg, password: secret}}],\n\
         imports: [{{service: {{account: SYS, subject: \"{ask}\"}}}}] }}\n\
         }}\nsystem_account: SYS\n{cluster}\n",
        clients[number]
    )
}

impl Cluster {
    /// Starts `count` servers.
    pub(crate) fn start(count: usize, sync: Sync) -> Self {
        let mut cluster = Self::prepare(count, sync);
        cluster.start_all();
        cluster
    }

    /// Writes the settings of `count` servers.
    pub(crate) fn prepare(count: usize, sync: Sync) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ports = free_ports(count * 2);
        let mut servers = Vec::new();
        for number in 0..count {
            let place = folder.path().join(format!("n{number}"));
            std::fs::create_dir(&place).expect("a folder");
            let text = config(&place, number, &ports, sync);
            std::fs::write(place.join("server.conf"), text).expect("written");
            servers.push(Server { client_port: ports[number], folder: place, child: None });
        }
        Self { servers, _folder: folder }
    }

    /// Gives a server another name.
    pub(crate) fn rename(&self, number: usize, name: &str) {
        let file = self.servers[number].folder.join("server.conf");
        let text = std::fs::read_to_string(&file).expect("readable");
        let (_, rest) = text.split_once('\n').expect("lines");
        std::fs::write(file, format!("server_name: {name}\n{rest}")).expect("written");
    }

    pub(crate) fn start_all(&mut self) {
        self.servers.iter_mut().for_each(Server::start);
    }

    pub(crate) fn kill_all(&mut self) {
        self.servers.iter_mut().for_each(Server::kill);
    }

    /// Waits until every copy of a stream is up to date, so that the next server may be killed.
    pub(crate) async fn all_current(&self, stream: &str) {
        eventually("every copy is up to date", async || {
            let options =
                async_nats::ConnectOptions::with_user_and_password("cvg".into(), "secret".into());
            let hosts = self.servers.iter().map(|server| {
                format!("127.0.0.1:{}", server.client_port).parse().expect("an address")
            });
            let hosts: Vec<async_nats::ServerAddr> = hosts.collect();
            let client = options.connect(hosts).await.ok()?;
            let stream = async_nats::jetstream::new(client).get_stream(stream).await.ok()?;
            let state = stream.cached_info().cluster.clone()?;
            let current = state.replicas.iter().all(|peer| peer.current && !peer.offline);
            (current && state.leader.is_some() && state.replicas.len() == 2).then_some(())
        })
        .await;
    }

    /// The address of a log in it.
    pub(crate) fn url(&self, name: &str) -> String {
        let hosts: Vec<String> =
            self.servers.iter().map(|server| format!("127.0.0.1:{}", server.client_port)).collect();
        format!("nats://cvg:secret@{}/{name}", hosts.join(","))
    }

    pub(crate) fn config(&self, name: &str) -> Config {
        let mut config = Config::new(self.url(name).parse().expect("an address"), KEY);
        config.require = match self.servers.len() {
            1 => Durability::Fsync,
            _ => Durability::QuorumFsync,
        };
        config
    }

    pub(crate) fn layout(&self) -> Layout {
        let (log_bytes, payload_bytes) = (256 << 20, 256 << 20);
        Layout { replicas: self.servers.len(), log_bytes, payload_bytes }
    }

    /// Makes a log, waiting until the servers have found each other.
    pub(crate) async fn create(&self, name: &str) -> Config {
        let config = self.config(name);
        eventually("the log can be made", async || {
            match JetStreamLog::create(&config, &self.layout()).await {
                Ok(()) => Some(()),
                Err(LogError::Unavailable(reason)) if reason.contains("exists already") => Some(()),
                Err(_) => None,
            }
        })
        .await;
        config
    }

    /// Makes a log and opens it.
    pub(crate) async fn log(&self, name: &str) -> JetStreamLog {
        let config = self.create(name).await;
        opened(&config).await
    }
}

/// Opens a log, waiting until the servers have chosen leaders.
pub(crate) async fn opened(config: &Config) -> JetStreamLog {
    let until = Instant::now() + READY;
    loop {
        match JetStreamLog::open(config).await {
            Ok(log) => return log,
            Err(error) if Instant::now() > until => panic!("the log cannot be opened: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Asks until there is an answer.
pub(crate) async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let until = Instant::now() + READY;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < until, "it did not come to this: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
