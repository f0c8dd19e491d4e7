_gpuvigil_words() {
  case "$1" in
    '') echo '--help --version -h agent alerts central chaos checkpoint completion config dashboards detect doctor metrics' ;;
    agent) echo '--help -h baseline check gpu health maintenance once run' ;;
    'agent run') echo '--config --help --strict -h' ;;
    'agent once') echo '--config --format --help --strict -h' ;;
    'agent check') echo '--config --fail-on --help --nagios --once --url -h -o' ;;
    'agent health') echo '--config --help -h -o set-healthy' ;;
    'agent health set-healthy') echo '--config --gpu --help --node --why -h -o' ;;
    'agent baseline') echo '--help -h diff write' ;;
    'agent baseline write') echo '--config --help -h -o' ;;
    'agent baseline diff') echo '--config --help -h -o' ;;
    'agent gpu') echo '--help -h release take' ;;
    'agent gpu release') echo '--config --for --help --why -h -o' ;;
    'agent gpu take') echo '--config --help -h -o' ;;
    'agent maintenance') echo '--help -h off on status' ;;
    'agent maintenance on') echo '--config --for --help --why -h -o' ;;
    'agent maintenance off') echo '--config --help -h -o' ;;
    'agent maintenance status') echo '--config --help -h -o' ;;
    config) echo '--help -h check schema show' ;;
    'config check') echo '--help --kind -h' ;;
    'config show') echo '--config --help --kind -h -o' ;;
    'config schema') echo '--help --kind -h' ;;
    doctor) echo '--config --help -h -o' ;;
    metrics) echo '--help -h list' ;;
    'metrics list') echo '--help -h -o' ;;
    alerts) echo '--help -h routing rules' ;;
    'alerts rules') echo '--help -h build check docs list test' ;;
    'alerts rules list') echo '--config --help --profile -h -o' ;;
    'alerts rules build') echo '--config --help --profile -h -o' ;;
    'alerts rules check') echo '--config --help --profile --promtool -h' ;;
    'alerts rules test') echo '--help --only --promtool -h' ;;
    'alerts rules docs') echo '--help -h -o' ;;
    'alerts routing') echo '--help -h build check' ;;
    'alerts routing build') echo '--config --help --sink -h -o' ;;
    'alerts routing check') echo '--amtool --config --help --sink -h' ;;
    central) echo '--help -h check monitors presets run' ;;
    'central run') echo '--config --help --log-format --log-level -h' ;;
    'central check') echo '--config --help --offline --output -h -o' ;;
    'central monitors') echo '--help --output --url -h -o' ;;
    'central presets') echo '--help --output -h -o' ;;
    detect) echo '--help -h backtest eta explain loss score tune' ;;
    'detect eta') echo '--format --help --output --plan --schedule --total-steps -h -o' ;;
    'detect loss') echo '--format --help --output -h -o' ;;
    'detect score') echo '--direction --help --min-dev-abs --min-dev-rel --model --output --scores --time-format -h -o' ;;
    'detect backtest') echo '--config --from --help --html --monitor --output --to -h -o' ;;
    'detect explain') echo '--at --config --help --monitor --output --series -h -o' ;;
    'detect tune') echo '--config --from --help --monitor --output --to -h -o' ;;
    dashboards) echo '--help -h build check list' ;;
    'dashboards build') echo '--help --output -h -o' ;;
    'dashboards list') echo '--help --output -h -o' ;;
    'dashboards check') echo '--board --help --output --prometheus -h -o' ;;
    chaos) echo '--help -h abort list plan recover run sim' ;;
    'chaos sim') echo '--help -h build clear clock kinds list overlay path set start' ;;
    'chaos sim build') echo '--help --real -h' ;;
    'chaos sim path') echo '--help --real -h' ;;
    'chaos sim start') echo '--gpus --help --profile --replace --seed --speed --state --workload -h' ;;
    'chaos sim overlay') echo '--help --real --replace --state -h' ;;
    'chaos sim clock') echo '--help --speed --state --step -h' ;;
    'chaos sim set') echo '--at --for --gpu --help --state -h c2c_down clock_drop driver_unloaded ecc_corrected ecc_uncorrected fabric frozen garbage gpu_lost gpu_missing hang hung_collective inforom_corrupted memory_leak no_permission nvlink_down nvlink_errors order_shuffled pcie_degraded power_brake power_cap recovery_action remap_failure remap_pending reset_required slow thermal_throttle version_mismatch xid' ;;
    'chaos sim clear') echo '--help --state -h' ;;
    'chaos sim list') echo '--help --output --state -h -o' ;;
    'chaos sim kinds') echo '--help --output -h -o' ;;
    'chaos list') echo '--help --output -h -o' ;;
    'chaos plan') echo '--help --output --target -h -o' ;;
    'chaos run') echo '--help --output --report --target -h -o' ;;
    'chaos abort') echo '--help --target -h' ;;
    'chaos recover') echo '--help --target -h' ;;
    checkpoint) echo '--help -h latest verify verify-service' ;;
    'checkpoint verify') echo '--help --manifest --sizes-only -h -o' ;;
    'checkpoint latest') echo '--help --sizes-only --state-dir -h -o' ;;
    'checkpoint verify-service') echo '--config --help --once -h' ;;
    completion) echo '--help -h bash zsh' ;;
    *) return 1 ;;
  esac
}
_gpuvigil_values() {
  case "$1" in
    'agent once --format') echo 'text openmetrics' ;;
    'agent check --fail-on') echo 'warn crit' ;;
    'agent check -o') echo 'text json' ;;
    'agent health -o') echo 'text json' ;;
    'agent health set-healthy -o') echo 'text json' ;;
    'agent baseline write -o') echo 'text json' ;;
    'agent baseline diff -o') echo 'text json' ;;
    'agent gpu release -o') echo 'text json' ;;
    'agent gpu take -o') echo 'text json' ;;
    'agent maintenance on -o') echo 'text json' ;;
    'agent maintenance off -o') echo 'text json' ;;
    'agent maintenance status -o') echo 'text json' ;;
    'config check --kind') echo 'agent central routing web' ;;
    'config show -o') echo 'yaml json' ;;
    'config show --kind') echo 'agent central routing web' ;;
    'config schema --kind') echo 'agent central routing web' ;;
    'doctor -o') echo 'text json' ;;
    'metrics list -o') echo 'table json markdown' ;;
    'alerts rules list --profile') echo 'default demo' ;;
    'alerts rules list -o') echo 'table json' ;;
    'alerts rules build --profile') echo 'default demo' ;;
    'alerts rules check --profile') echo 'default demo' ;;
    'central run --log-level') echo 'debug info warning error' ;;
    'central run --log-format') echo 'logfmt json' ;;
    'central check -o') echo 'text json' ;;
    'central check --output') echo 'text json' ;;
    'central monitors -o') echo 'text json' ;;
    'central monitors --output') echo 'text json' ;;
    'central presets -o') echo 'text json' ;;
    'central presets --output') echo 'text json' ;;
    'detect eta -o') echo 'text json' ;;
    'detect eta --output') echo 'text json' ;;
    'detect loss -o') echo 'text json' ;;
    'detect loss --output') echo 'text json' ;;
    'detect score --direction') echo 'above below both' ;;
    'detect score -o') echo 'text json' ;;
    'detect score --output') echo 'text json' ;;
    'detect backtest -o') echo 'text json' ;;
    'detect backtest --output') echo 'text json' ;;
    'detect explain -o') echo 'text json' ;;
    'detect explain --output') echo 'text json' ;;
    'detect tune -o') echo 'text json' ;;
    'detect tune --output') echo 'text json' ;;
    'dashboards list -o') echo 'table json' ;;
    'dashboards list --output') echo 'table json' ;;
    'dashboards check -o') echo 'table json' ;;
    'dashboards check --output') echo 'table json' ;;
    'chaos sim start --profile') echo 't4 a40 a100 l40s rtx4090 h100 h200 gh200 b200' ;;
    'chaos sim start --workload') echo 'idle training inference' ;;
    'chaos sim list -o') echo 'text json' ;;
    'chaos sim list --output') echo 'text json' ;;
    'chaos sim kinds -o') echo 'text json' ;;
    'chaos sim kinds --output') echo 'text json' ;;
    'chaos list -o') echo 'text json' ;;
    'chaos list --output') echo 'text json' ;;
    'chaos plan -o') echo 'text json' ;;
    'chaos plan --output') echo 'text json' ;;
    'chaos run -o') echo 'text json' ;;
    'chaos run --output') echo 'text json' ;;
    'checkpoint verify -o') echo 'text json' ;;
    'checkpoint latest -o') echo 'text json' ;;
    *) return 1 ;;
  esac
}
_gpuvigil() {
  local place="" i next found
  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"
  for ((i = 1; i < COMP_CWORD; i++)); do
    next="${place:+$place }${COMP_WORDS[i]}"
    _gpuvigil_words "$next" >/dev/null && place="$next"
  done
  COMPREPLY=()
  if found=$(_gpuvigil_values "${place:+$place }$previous"); then
    COMPREPLY=($(compgen -W "$found" -- "$current"))
  elif [[ "$previous" != -* || "$current" == -* ]]; then
    COMPREPLY=($(compgen -W "$(_gpuvigil_words "$place")" -- "$current"))
  fi
}
complete -o default -F _gpuvigil gpuvigil
