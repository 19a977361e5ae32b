//! Effects: workers that turn scheduled steps into outcomes.
