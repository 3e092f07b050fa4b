"""Grid -> cells -> results: plan, store, runner, executors. Nothing heavy is imported here."""
