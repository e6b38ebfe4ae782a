"""What the columns of a page's tables mean, for those who hover over them and for the legend."""

from collections.abc import Iterable

from experiments.common.table import Table

# By the name of a column, or its beginning where the rest names a method.
MEANINGS = {
    "d": "Numbers per image in the output of the layer.",
    "pairs": "Measurements at the same update of the same seed that both methods have.",
    "distance, ": "Earth Mover distance between the layer's outputs on the same images before and "
    "after an update: how far it moved. Median over updates and seeds.",
    "shift, ": "Earth Mover distance between the layer's outputs before and after an update, with "
    "the first method. Median over updates and seeds.",
    "shift": "The same with the method of the row.",
    "ratio": "How many times as far the layer moved as with the first method: the median of the "
    "ratios at the same update of the same seed. Below 1: it moved less.",
    "quartiles": "A quarter of these ratios is below the first number, a quarter above the second.",
    "over seeds": "Smallest and largest of the median ratios of single seeds.",
    "certified less, more": "Share of the measurements at which it is proven that the layer moved "
    "less, or more, than with the first method: the two certificates do not overlap.",
    "certified less, %": "Share of the measurements at which it is proven that the layer moved "
    "less than with the first method: the two certificates do not overlap.",
    "certified more, %": "Share of the measurements at which it is proven that it moved more.",
    "open": "Certificates whose lower and upper end did not meet to a relative gap of 1e-5: the "
    "distance lies between them, and nothing more is proven. In the order of the methods.",
    "largest gap": "Largest (upper - lower) / upper of all certificates: how far from the truth a "
    "distance can be at most, as a share of it.",
    "moved less": "The method with which the layer moved less by the median ratio of every seed.",
    "measured": "Measurements that are finite and in which the layer moved.",
    "distance": "Earth Mover distance, computed with its certificate. Median.",
    "lower / distance": "Best lower bound in closed form, as a share of the distance; at most 1.",
    "best lower": "The lower bound that was the best most often.",
    "upper / distance": "Best upper bound in closed form, in units of the distance; at least 1.",
    "best upper": "The upper bound that was the best most often.",
    "pairing optimal": "Share of the measurements in which pairing every image with itself is "
    "proven to be the cheapest way from the outputs before the update to those after it.",
    "lower": "Lower end of the certificate: the distance is proven to be at least this.",
    "value": "The distance as computed, between the two ends.",
    "upper": "Upper end of the certificate: the distance is proven to be at most this.",
    "gap, relative": "(upper - lower) / upper of the certificate.",
    "update": "The update after which the layer was measured.",
    "certificate": "Proven lower and upper end of the distance. Medians.",
    "certificate, relative": "The same in units of the layer's own spread.",
    "relative": "The distance in units of the layer's own spread before the update.",
    "distances": "Earth Mover distances that were computed, over layers, updates and seeds.",
    "absolute: less": "Layers that moved less than with the first method in every seed.",
    "absolute: more": "Layers that moved more in every seed.",
    "absolute: ratio": "Smallest and largest of the layers' median ratios.",
    "relative: less": "The same of the distance in units of the layer's own spread.",
    "relative: more": "The same of the distance in units of the layer's own spread.",
    "relative: ratio": "The same of the distance in units of the layer's own spread.",
    "minus ": "Mean difference of the accuracies, paired by seed, in percentage points.",
    "difference": "Mean difference of the accuracies, paired by seed, in percentage points: the "
    "method minus the other.",
    "95 % interval": "Of the mean difference: where chance alone would put it, were seeds drawn "
    "again, 95 times of 100.",
    "p": "Of Student's paired t-test, two-sided: how often chance alone would give a difference "
    "this large.",
    "p (Holm)": "The same, adjusted for the number of comparisons in the table by Holm's method.",
    "found": "Whether the adjusted p is below 0.05, and why there is no test where there is none.",
    "layers compared": "Layers that both methods have, with outputs of the same size, of all.",
    "drift": "How many times as far the layers moved as with the other method: ratio of the median "
    "distances of a layer, median over layers.",
    "drift, relative": "The same in units of the layer's own spread.",
    "probing, % of the updates": "Time of the probe as a share of that of the updates.",
    "time / ": "Ratio of the times per step, of methods trained in turns in one run.",
    "epochs to ": "Epochs until the first evaluation with this accuracy.",
    "epochs, minus ": "Mean difference of these epochs, paired by seed.",
    "reached it": "Seeds that reached it.",
    "upper ": "An upper bound in closed form, as a multiple of the distance; at least 1.",
    "lower ": "A lower bound in closed form, as a share of the distance; at most 1.",
}


def meaning(column: str) -> str:
    """Return what a column means; "" if its name says it.

    Args:
        column: Its name.
    """
    if column in MEANINGS:
        return MEANINGS[column]
    starts = [s for s in MEANINGS if s.endswith(" ") and column.startswith(s)]
    return MEANINGS[max(starts, key=len)] if starts else ""


def legend(tables: Iterable[Table]) -> list[tuple[str, str]]:
    """Return the columns of tables, each once, with what they mean; those whose name says it not.

    Args:
        tables: Of one part of a page.
    """
    found: dict[str, str] = {}
    for table in tables:
        for column in table.columns:
            if said := meaning(column.name):
                start = next((s for s in MEANINGS if s.endswith(" ") and said == MEANINGS[s]), "")
                found.setdefault(f"{start.rstrip(', ')} …" if start else column.name, said)
    return list(found.items())
