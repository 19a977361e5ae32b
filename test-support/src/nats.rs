//! Real nats-servers on loopback, each with its own folder, ended by their own handles.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use convergio_eventstore::jetstream::{JetStreamConfig, JetStreamLog, Layout};
use convergio_eventstore::{Durability, LogError};

/// Longest wait for a server or a cluster to be ready.
pub const READY: Duration = Duration::from_secs(60);
/// Payload key of every log in these servers.
pub const KEY: [u8; 32] = [9; 32];

/// A file of `deploy/nats/`.
pub fn deployed_file(name: &str) -> PathBuf {
    let places = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut files = places.map(|place| place.join("deploy/nats").join(name));
    files.find(|file| file.is_file()).expect("the file is there")
}

/// The pinned server's program, installed once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let script = deployed_file("install.sh");
        let output = Command::new(script).stderr(Stdio::inherit()).output().expect("runs");
        assert!(output.status.success(), "nats-server cannot be installed");
        PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
    })
}

/// When a server syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// Before each acknowledgement.
    Always,
    /// At the server's own intervals.
    Default,
}

/// One server; it may be down.
pub struct Server {
    /// Port on loopback for clients.
    pub client_port: u16,
    folder: PathBuf,
    /// What its settings take from the environment.
    environment: Vec<(&'static str, String)>,
    child: Option<Child>,
}

impl Server {
    /// Starts it on what its folder holds.
    pub fn start(&mut self) {
        let mut options = std::fs::File::options();
        let log = options.create(true).append(true).open(self.folder.join("server.log"));
        let log = log.expect("a file");
        let child = Command::new(program())
            .arg("-c")
            .arg(self.folder.join("server.conf"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("starts");
        self.child = Some(child);
    }

    /// Ends it at once, as a crash of the process would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("ends");
        }
    }

    /// Stops or continues it: a partition from the others' view.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("runs");
        assert!(sent.success());
    }

    /// One that is not started yet, whose folder holds its settings.
    pub fn new(
        client_port: u16,
        folder: PathBuf,
        environment: Vec<(&'static str, String)>,
    ) -> Self {
        Self { client_port, folder, environment, child: None }
    }

    /// What it has said.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
    }

    /// Where its files are.
    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Servers that belong together.
pub struct Cluster {
    /// The servers in the order of their names.
    pub servers: Vec<Server>,
    routes: Vec<u16>,
    _folder: tempfile::TempDir,
}

/// Ports that nobody uses now.
pub fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    listeners.iter().map(|l| l.local_addr().expect("bound").port()).collect()
}

fn config(folder: &Path, number: usize, ports: &[u16], sync: SyncMode) -> String {
    let servers = ports.len() / 2;
    let (clients, routes) = ports.split_at(servers);
    let sync = if sync == SyncMode::Always { "sync_interval: always" } else { "" };
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
    let ask = ["JSZ", "VARZ"].map(|what| format!("\"$SYS.REQ.SERVER.PING.{what}\""));
    let exports = ask.each_ref().map(|ask| format!("{{service: {ask}, response_type: stream}}"));
    let imports =
        ask.each_ref().map(|ask| format!("{{service: {{account: SYS, subject: {ask}}}}}"));
    let (exports, imports) = (exports.join(", "), imports.join(", "));
    format!(
        "server_name: n{number}\nlisten: \"127.0.0.1:{}\"\n\
         jetstream {{ store_dir: \"{store}\", max_file_store: 64GB, {sync} }}\n\
         accounts {{\n\
         SYS {{ users: [{{user: sys, password: sys}}],\n\
         exports: [{exports}] }}\n\
         CVG {{ jetstream: enabled, users: [{{user: cvg, password: secret}}],\n\
         imports: [{imports}] }}\n\
         }}\nsystem_account: SYS\n{cluster}\n",
        clients[number]
    )
}

impl Cluster {
    /// Starts `count` servers.
    pub fn start(count: usize, sync: SyncMode) -> Self {
        let mut cluster = Self::prepare(count, sync);
        cluster.start_all();
        cluster
    }

    /// Writes the settings of `count` servers.
    pub fn prepare(count: usize, sync: SyncMode) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ports = free_ports(count * 2);
        let mut servers = Vec::new();
        for number in 0..count {
            let place = folder.path().join(format!("n{number}"));
            std::fs::create_dir(&place).expect("a folder");
            let text = config(&place, number, &ports, sync);
            std::fs::write(place.join("server.conf"), text).expect("written");
            servers.push(Server::new(ports[number], place, Vec::new()));
        }
        Self { servers, routes: ports[count..].to_vec(), _folder: folder }
    }

    /// Gives a server another name.
    pub fn rename(&self, number: usize, name: &str) {
        let (from, to) = (format!("server_name: n{number}\n"), format!("server_name: {name}\n"));
        self.change_settings(number, &from, &to);
    }

    /// Changes a server's settings, before it starts.
    pub fn change_settings(&self, number: usize, from: &str, to: &str) {
        let file = self.servers[number].folder.join("server.conf");
        let text = std::fs::read_to_string(&file).expect("readable");
        assert!(text.contains(from), "{from} is not in {text}");
        std::fs::write(file, text.replace(from, to)).expect("written");
    }

    /// Starts every server on what its folder holds.
    pub fn start_all(&mut self) {
        self.servers.iter_mut().for_each(Server::start);
    }

    /// Ends every server at once.
    pub fn kill_all(&mut self) {
        self.servers.iter_mut().for_each(Server::kill);
    }

    /// Waits until every copy of a stream is up to date, so that the next server may be killed.
    pub async fn all_current(&self, stream: &str) {
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

    /// Where a server lets others come in.
    pub fn route(&self, number: usize) -> u16 {
        self.routes[number]
    }

    /// The address of a log in it.
    pub fn url(&self, name: &str) -> String {
        let hosts: Vec<String> =
            self.servers.iter().map(|server| format!("127.0.0.1:{}", server.client_port)).collect();
        format!("nats://cvg:secret@{}/{name}", hosts.join(","))
    }

    /// How a log in it is opened.
    pub fn config(&self, name: &str) -> JetStreamConfig {
        let mut config = JetStreamConfig::new(self.url(name).parse().expect("an address"), KEY);
        config.insecure_cluster = true;
        config.required_durability = match self.servers.len() {
            1 => Durability::Fsync,
            _ => Durability::QuorumFsync,
        };
        config
    }

    /// As many copies as there are servers, and 256 MiB of each kind.
    pub fn layout(&self) -> Layout {
        let (log_bytes, payload_bytes) = (256 << 20, 256 << 20);
        Layout { replicas: self.servers.len(), log_bytes, payload_bytes }
    }

    /// Makes a log, waiting until the servers have found each other.
    pub async fn create(&self, name: &str) -> JetStreamConfig {
        let config = self.config(name);
        eventually("the log can be made", async || {
            match JetStreamLog::create_log(&config, &self.layout()).await {
                Ok(()) => Some(()),
                Err(LogError::Unavailable(reason)) if reason.contains("exists already") => Some(()),
                Err(_) => None,
            }
        })
        .await;
        config
    }

    /// Makes a log and opens it.
    pub async fn log(&self, name: &str) -> JetStreamLog {
        let config = self.create(name).await;
        open_log(&config).await
    }
}

/// Opens a log, waiting until the servers have chosen leaders.
pub async fn open_log(config: &JetStreamConfig) -> JetStreamLog {
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
pub async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let until = Instant::now() + READY;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < until, "it did not come to this: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
