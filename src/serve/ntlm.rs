//! Watches whether the directory in force can check NTLM, which is offered only while it can.

use std::sync::Arc;
use std::time::Duration;

use async_io::Timer;

use super::Service;
use crate::auth::directory::Unavailable;

/// How often the directory is asked. It looks less often while logins show that all is well.
const ROUND: Duration = Duration::from_secs(5);

/// Watches for as long as the task lives.
pub async fn watch(service: Arc<Service>) {
    let mut is_told = false;
    loop {
        let accounts = service.clone();
        match smol::unblock(move || accounts.accounts.try_ntlm()).await {
            Ok(()) if is_told => {
                is_told = false;
                log::warn!("NTLM is offered again");
            }
            Err(Unavailable(why)) if !is_told => {
                is_told = true;
                log::warn!("NTLM is not offered: {why}");
            }
            Ok(()) | Err(_) => {}
        }
        Timer::after(ROUND).await;
    }
}
