//! Three servers by `deploy/nats/server.conf` itself, with certificates and keys of their own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use convergio_eventstore::jetstream::{
    ClusterAddress, JetStreamConfig, JetStreamLog, Layout, Login,
};
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer};

use crate::nats::{KEY, Server, deployed_file, eventually, free_ports};

/// Three servers that strangers cannot join or listen to.
pub struct ShutCluster {
    /// The servers in the order of their names.
    pub servers: Vec<Server>,
    /// Ports at which servers come in.
    pub routes: Vec<u16>,
    /// Certificate of the servers' authority (PEM).
    pub authority: PathBuf,
    /// File with the key of a user of the log.
    pub worker: PathBuf,
    /// File with the key of the user that makes it.
    pub maker: PathBuf,
    name: String,
    _folder: tempfile::TempDir,
}

/// An authority of our own, and a certificate of a server on this machine.
pub struct Certificates {
    /// Certificate of the authority (PEM).
    pub authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificates {
    /// Writes all of them into a folder.
    pub fn write(folder: &Path) -> Self {
        let files = ["ca.pem", "server.pem", "server.key"].map(|name| folder.join(name));
        let [authority, certificate, key] = files;
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ours = rcgen::KeyPair::generate().expect("a key");
        std::fs::write(&authority, params.self_signed(&ours).expect("made").pem())
            .expect("written");
        let issuer = Issuer::new(params, ours);
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
        let its = rcgen::KeyPair::generate().expect("a key");
        let signed = params.signed_by(&its, &issuer).expect("made");
        std::fs::write(&certificate, signed.pem()).expect("written");
        std::fs::write(&key, its.serialize_pem()).expect("written");
        Self { authority, certificate, key }
    }

    /// As a server's settings name them.
    pub fn settings(&self) -> String {
        format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\" }}",
            self.certificate.display(),
            self.key.display(),
            self.authority.display()
        )
    }
}

/// A file with the seed of a new key, and the key's public part.
pub fn write_seed(folder: &Path, name: &str) -> (PathBuf, String) {
    let (key, file) = (KeyPair::new_user(), folder.join(name));
    std::fs::write(&file, key.seed().expect("it has one")).expect("written");
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("ours");
    (file, key.public_key())
}

impl ShutCluster {
    /// Starts the servers of a log of this name.
    pub fn start(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let files = Certificates::write(path);
        let (worker, worker_key) = write_seed(path, "log.nk");
        let (maker, maker_key) = write_seed(path, "maker.nk");
        let (_, system_key) = write_seed(path, "system.nk");
        let ports = free_ports(6);
        let (clients, routes) = ports.split_at(3);
        let shown = |file: &Path| file.display().to_string();
        let peer =
            |number: usize| format!("nats://servers:between-us@127.0.0.1:{}", routes[number]);
        let settings = std::fs::read_to_string(deployed_file("server.conf")).expect("readable");
        let prefix = name.to_ascii_lowercase();
        let settings = settings.replace("CVG_", &format!("{name}_"));
        let settings = settings.replace("\"cvg.", &format!("\"{prefix}."));
        let mut servers = Vec::new();
        for number in 0..3 {
            let place = path.join(format!("n{number}"));
            std::fs::create_dir(&place).expect("a folder");
            std::fs::write(place.join("server.conf"), &settings).expect("written");
            let environment = vec![
                ("NATS_NAME", format!("n{number}")),
                ("NATS_LISTEN", format!("127.0.0.1:{}", clients[number])),
                ("NATS_CLUSTER_LISTEN", format!("127.0.0.1:{}", routes[number])),
                ("NATS_PEER_1", peer((number + 1) % 3)),
                ("NATS_PEER_2", peer((number + 2) % 3)),
                ("NATS_STORE", shown(&place.join("store"))),
                ("NATS_CA", shown(&files.authority)),
                ("NATS_CERT", shown(&files.certificate)),
                ("NATS_KEY", shown(&files.key)),
                ("NATS_ROUTE_USER", "servers".to_owned()),
                ("NATS_ROUTE_PASSWORD", "between-us".to_owned()),
                ("NATS_LOG_NKEY", worker_key.clone()),
                ("NATS_MAKER_NKEY", maker_key.clone()),
                ("NATS_SYS_NKEY", system_key.clone()),
            ];
            servers.push(Server::new(clients[number], place, environment));
        }
        servers.iter_mut().for_each(Server::start);
        let (routes, authority, name) = (routes.to_vec(), files.authority, name.to_owned());
        Self { servers, routes, authority, worker, maker, name, _folder: folder }
    }

    /// The log's address, without who asks.
    pub fn url(&self) -> String {
        let hosts = self.servers.iter().map(|server| format!("127.0.0.1:{}", server.client_port));
        format!("tls://{}/{}", hosts.collect::<Vec<_>>().join(","), self.name)
    }

    /// The log, as who has a file meets it.
    pub fn config(&self, credentials: &Path) -> JetStreamConfig {
        let mut address: ClusterAddress = self.url().parse().expect("an address");
        address.login = Login::Credentials(credentials.to_owned());
        address.authority = Some(self.authority.clone());
        JetStreamConfig::new(address, KEY)
    }

    /// Makes the log, as who may; the servers may still be finding each other.
    pub async fn create(&self) -> JetStreamConfig {
        let layout = Layout { replicas: 3, log_bytes: 256 << 20, payload_bytes: 256 << 20 };
        let maker = self.config(&self.maker);
        eventually("the log can be made", async || {
            match JetStreamLog::create_log(&maker, &layout).await {
                Ok(()) => Some(()),
                Err(error) => error.to_string().contains("exists already").then_some(()),
            }
        })
        .await;
        self.config(&self.worker)
    }
}
