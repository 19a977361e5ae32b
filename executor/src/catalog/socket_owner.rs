//! Owners of listening sockets on this machine, as Linux reports them. Any user may listen on a
//! free port, so a port alone does not tell whose server it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state `LISTEN` in the tables.
const LISTEN: &str = "0A";
/// The kernel's tables of TCP sockets (proc_pid_net(5)).
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// Returns the users whose sockets would accept a connection to `address`; empty if nobody listens
/// on this machine, `None` where the system has no such tables.
pub fn listening_uids(address: SocketAddr) -> Option<Vec<u32>> {
    let tables = TABLES.map(|table| std::fs::read_to_string(table).ok());
    if tables.iter().all(Option::is_none) {
        return None;
    }
    let mut uids: Vec<u32> =
        tables.iter().flatten().flat_map(|table| uids_in_table(table, address)).collect();
    // Several sockets of one user count once.
    uids.sort_unstable();
    uids.dedup();
    Some(uids)
}

/// Returns the owners of matching sockets in one table.
fn uids_in_table(table: &str, address: SocketAddr) -> Vec<u32> {
    let matching_uid = |line: &str| {
        // Columns: number, local address, remote address, state, queues, timer, retransmits, uid.
        let mut fields = line.split_whitespace().skip(1);
        let local = socket_address(fields.next()?)?;
        let is_listening = fields.nth(1)? == LISTEN;
        let uid = fields.nth(3)?.parse().ok()?;
        (is_listening && can_accept(local, address)).then_some(uid)
    };
    table.lines().skip(1).filter_map(matching_uid).collect()
}

/// Returns whether a socket bound to one address accepts connections to another. A socket bound to
/// all addresses accepts loopback; which other addresses are this machine's is not in the tables.
fn can_accept(bound: SocketAddr, address: SocketAddr) -> bool {
    // IPv4 addresses mapped into IPv6 compare as IPv4.
    let (ip, wanted_ip) = (bound.ip().to_canonical(), address.ip().to_canonical());
    let is_taken = ip == wanted_ip || (ip.is_unspecified() && wanted_ip.is_loopback());
    bound.port() == address.port() && is_taken
}

/// Parses an address of the tables: 32-bit words in the machine's byte order, then the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (digits, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |from: usize| u32::from_str_radix(digits.get(from..from + 8)?, 16).ok();
    let ip = match digits.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes())),
        32 => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(index * 8)?.to_ne_bytes());
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::{listening_uids, uids_in_table};

    #[cfg(target_endian = "little")]
    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 1 1
   1: 00000000:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   998        0 2 1
   2: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1002        0 3 1
";
    #[cfg(target_endian = "little")]
    const TABLE_6: &str = "  sl  local_address remote_address st
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 7 0
   1: 00000000000000000000000001000000:1F92 00000000000000000000000000000000:0000 0A 0:0 0:0 0 8 0
   2: 0000000000000000FFFF00000100007F:1F93 00000000000000000000000000000000:0000 0A 0:0 0:0 0 9 0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn whoever_could_take_the_connection_is_told() {
        let uids = |table, address: &str| uids_in_table(table, address.parse().unwrap());
        assert_eq!(uids(TABLE, "127.0.0.1:8080"), [1001]);
        assert_eq!(uids(TABLE, "127.0.0.2:8080"), [0_u32; 0]);
        assert_eq!(uids(TABLE, "127.0.0.1:11434"), [998], "it listens everywhere");
        assert_eq!(uids(TABLE, "192.0.2.1:11434"), [0_u32; 0], "that may be another machine");
        assert_eq!(uids(TABLE, "127.0.0.1:8081"), [0_u32; 0], "it does not listen");
        assert_eq!(uids(TABLE_6, "127.0.0.1:8080"), [7], "it listens for both families");
        assert_eq!(uids(TABLE_6, "[::1]:8082"), [8]);
        assert_eq!(uids(TABLE_6, "127.0.0.1:8083"), [9], "an address of the other family");
        assert_eq!(uids("", "127.0.0.1:1"), [0_u32; 0]);
        assert_eq!(uids("\nx\n 0: zz:1 q 0A\n", "127.0.0.1:1"), [0_u32; 0]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernel_tells_of_our_own_socket() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(listening_uids(address).map(|uids| uids.len()), Some(1));
        drop(listener);
        assert_eq!(listening_uids(address), Some(Vec::new()));
    }
}
