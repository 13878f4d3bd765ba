use crate::settings::{self, KeptIn, Settings};

/// The first octet chooses a setting, the others are the words typed for it. An accepted value reads back from the
/// store unchanged and without complaint.
pub fn settings(data: &[u8]) {
    let [chosen, typed @ ..] = data else { return };
    let mut keys = settings::keys().filter(|key| !matches!(key.kept_in, KeptIn::Pointer | KeptIn::Owner));
    let Some(key) = keys.nth(usize::from(*chosen)) else { return };
    let typed = String::from_utf8_lossy(typed);
    let words: Vec<String> = typed.split(' ').map(str::to_owned).collect();
    let Ok(set) = Settings::default().with(key, &words) else { return };
    let rows = set.rows_changed_since(&Settings::default());
    let texts = rows.iter().filter_map(|(name, text)| Some((*name, text.as_deref()?)));
    assert_eq!(Settings::from_rows(texts), (set, Vec::new()));
}
