"""scikit-learn's own conformance checks of the heads that need no parameter."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from mtsk.heads import (
    JointLogistic,
    JointRidge,
    RelatedRidge,
    SharedLayerNetwork,
)

WEIGHTS = "check_sample_weight_equivalence_on_dense_data"


def expected_failures(estimator):
    """Return the checks that cannot hold, each with its reason."""
    if isinstance(estimator, SharedLayerNetwork):
        reason = (
            "minibatches are drawn by row, so a row of weight 2 is not two rows; their "
            "mean loss is (test_network.py::test_weights_are_repetitions)"
        )
    elif isinstance(estimator, JointLogistic):
        reason = (
            "asks for equality to 1e-7; products are float32, the search stops early. "
            "test_logistic.py::test_weights_are_repetitions checks what they allow"
        )
    elif estimator.calibrate:
        reason = (
            "folds are dealt out by row, so a row of weight 2 is not two rows; with "
            "groups= it is (test_duplicating_every_row_of_an_image_changes_nothing)"
        )
    else:
        reason = (
            "asks for equality to 1e-7, products are float32; "
            "test_weights_are_repetitions, in the tests of each ridge, is looser"
        )
    return {WEIGHTS: reason}


@parametrize_with_checks(
    [
        JointLogistic(),
        JointRidge(),
        JointRidge(alpha=1e-3, calibrate=False),
        RelatedRidge(),
        SharedLayerNetwork((16,), random_state=0),
    ],
    expected_failed_checks=expected_failures,
)
def test_conforms(estimator, check):
    check(estimator)
