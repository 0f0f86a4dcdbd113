# How stages of dvc.yaml call kedro: that of the environment in which DVC itself is installed, activated or not.
# Written by `kedro lineage sync`; it has no paths of any machine.

beside() { # takes kedro beside the Python that runs a process; fails if the process is no Python
    if [ -r "/proc/$1/cmdline" ]; then
        python=$(tr '\0' '\n' < "/proc/$1/cmdline" | head -n 1)
    else
        python=$(ps -o args= -p "$1" 2> /dev/null | sed 's/ .*//')
    fi
    case $python in
        /*) ;;
        */*) python="/proc/$1/cwd/$python" ;;
        *) return 1 ;;
    esac
    case ${python##*/} in python*) ;; *) return 1 ;; esac
    folder=$(cd -P "$(dirname "$python")" 2> /dev/null && pwd -P) && [ -x "$folder/kedro" ] && kedro=$folder/kedro
    return 0
}

parent() {
    if [ -r "/proc/$1/status" ]; then
        sed -n 's/^PPid:[[:space:]]*//p' "/proc/$1/status"
    else
        ps -o ppid= -p "$1" 2> /dev/null | tr -d ' '
    fi
}

kedro=
process=$PPID
for _ in 1 2 3 4; do
    case $process in '' | 0 | 1) break ;; esac
    beside "$process" && break
    process=$(parent "$process")
done
for place in "${DVC_ROOT:-.}/.venv/bin/kedro" .venv/bin/kedro; do
    [ -n "$kedro" ] || { [ -x "$place" ] && kedro=$place; }
done
if [ -z "$kedro" ] && ! kedro=$(command -v kedro); then
    echo "kedro was not found: install DVC and the project in one environment, or activate the project's." >&2
    exit 127
fi
exec "$kedro" "$@"
