//! Read models: disposable SQL folds of the log.
