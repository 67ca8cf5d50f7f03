//! Operations that clients send on their stream.

use super::args::Args;
use super::core_access::CoreNow;
use super::{Ext, ExtError};
use crate::protocol::Value;

/// Handles a message of a client's stream. Returns false if the operation is none of the extensions'.
///
/// Runs on the core's thread. A message that makes no sense is logged and passed over: the stream goes on.
pub fn handle_stream(
    ext: &Ext,
    core: &mut impl CoreNow,
    op: &str,
    msg: &Value,
    client: &str,
) -> bool {
    let args = Args(msg);
    let result = match op {
        "queue-future-release" => queue_future_release(ext, core, args, client),
        "queue_release" => queue_release(ext, core, args),
        "variable-future-received-confirm" => variable_confirm(ext, core, args, client),
        "variable_delete" => variable_delete(ext, core, args),
        "publish_flush_batched_send" => flush(ext, core, args),
        _ => return false,
    };
    if let Err(error) = result {
        tracing::warn!(op, client, %error, "ignored a message of a client's stream");
    }
    true
}

fn queue_future_release(
    ext: &Ext,
    core: &mut impl CoreNow,
    args: Args,
    client: &str,
) -> Result<(), ExtError> {
    let (name, key) = (args.key("name")?, args.key("key")?);
    core.client_desires_keys(std::slice::from_ref(&key), client);
    ext.change(
        |effects| core.queue(effects),
        |state, out| state.queues.future_received(&name, &key, out),
    );
    Ok(())
}

fn queue_release(ext: &Ext, core: &mut impl CoreNow, args: Args) -> Result<(), ExtError> {
    let name = args.key("name")?;
    ext.change(
        |effects| core.queue(effects),
        |state, out| state.queues.release(&name, out),
    );
    Ok(())
}

fn variable_confirm(
    ext: &Ext,
    core: &mut impl CoreNow,
    args: Args,
    client: &str,
) -> Result<(), ExtError> {
    let (name, key, token) = (args.key("name")?, args.key("key")?, args.str("token")?);
    core.client_desires_keys(std::slice::from_ref(&key), client);
    ext.change(
        |effects| core.queue(effects),
        |state, out| state.variables.confirm(&name, &key, token, out),
    );
    Ok(())
}

fn variable_delete(ext: &Ext, core: &mut impl CoreNow, args: Args) -> Result<(), ExtError> {
    let name = args.key("name")?;
    ext.change(
        |effects| core.queue(effects),
        |state, out| state.variables.delete(&name, out),
    );
    Ok(())
}

fn flush(ext: &Ext, core: &mut impl CoreNow, args: Args) -> Result<(), ExtError> {
    let id = args.id("uid")?;
    ext.change(
        |effects| core.queue(effects),
        |state, out| state.datasets.mark_arrived(id, out),
    );
    Ok(())
}
